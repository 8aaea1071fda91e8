"""Rates: the share of positives among rows with the same values."""

import numpy as np
import pytest
import torch

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.encoding.label_sums import Seen
from recsys.features.kinds.derived import Declared
from recsys.features.kinds.rate import RateFeature

CASE = {
    "base": {"name": "f", "kind": "rate", "of": ["user", "item"]},
    "values": {
        "of": [["user"], ["item"], ["user", "item"]],
        "smoothing": [1.0, 10.0, 0.0],
        "rows": [None, "folds"],
        "folds": [2, 5, 1],
    },
    "needs": {"folds": {"rows": "folds"}},
}
LAYOUT = FeatureLayout((("user", 1), ("item", 1)), (), ())


def declared(**changed: bool) -> Declared:
    facts = {"has_time": True, "has_order": False, "has_label": True, **changed}
    return Declared({"user": False, "item": False, "tags": True}, ("item",), **facts)


def test_numbers_by_hand() -> None:
    feature = RateFeature(name="f", of=("user", "item"), smoothing=2)
    # 3 of 4 rows of the value, 8 of 38 rows in all: the base rate is (8 + 1) / (38 + 2).
    seen = Seen(np.array([3.0, 0]), np.array([4.0, 0]), np.full(2, 8.0), np.full(2, 38.0))
    rate, base = (3 + 2 * 0.225) / (4 + 2), 0.225
    beyond = np.log(rate / (1 - rate)) - np.log(base / (1 - base))
    expected = torch.tensor([[beyond, np.log(5), 0], [0, 0, 1]], dtype=torch.float32)
    assert torch.equal(feature.numbers(seen), expected)
    assert feature.layout(LAYOUT).dense == ("f", "f.count", "f.null")
    assert feature.shown(expected[0].tolist()) == f"log-odds {beyond:+.2f} of 4 rows"
    assert feature.shown(expected[1].tolist()) == "no training row"
    assert feature.shown([-0.001, float(np.log(2)), 0]) == "log-odds +0.00 of 1 row"
    assert feature.shown([0.5, float(np.log1p(20_202)), 0]) == "log-odds +0.50 of 20,202 rows"
    assert feature.shown([0.5, float(np.log1p(2.5)), 0]) == "log-odds +0.50 of 2.5 rows"


def test_a_value_is_that_of_all_its_features_in_their_order() -> None:
    block = FeatureBlock(torch.tensor([[1, 2], [2, 1], [1, 2], [1, 3]]), (), torch.zeros(4, 0))
    values = RateFeature(name="f", of=("user", "item")).values(block, LAYOUT)
    assert values[0] == values[2]
    assert len(set(values.tolist())) == 3
    turned = RateFeature(name="f", of=("item", "user")).values(block, LAYOUT)
    assert turned[0] == values[1]
    alone = RateFeature(name="f", of=("user",)).values(block, LAYOUT)
    assert alone[0] == alone[3] != alone[1]


@pytest.mark.parametrize(
    ("options", "facts", "words"),
    [
        ({"of": ("usr",)}, {}, r"none of the features that are looked up.*did you mean 'user'"),
        ({"of": ("user", "tags")}, {}, "several values a row, and a rate is of one"),
        ({"of": ("user", "user")}, {}, "of a feature and itself"),
        ({"of": ("user",)}, {"has_label": False}, "give the label, or leave the feature out"),
        ({"of": ("user",), "rows": "earlier"}, {"has_time": False}, "or set rows: folds"),
        ({"of": ("user",), "folds": 3}, {}, "folds is for rows: folds"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    options: dict[str, object], facts: dict[str, bool], words: str
) -> None:
    feature = RateFeature.model_validate({"name": "f", **options})
    with pytest.raises(ValueError, match=words):
        feature.check(declared(**facts))


def test_earlier_rows_where_there_is_a_time_and_folds_elsewhere() -> None:
    feature = RateFeature(name="f", of=("user",), folds=7)
    assert feature.folds_of(has_time=True) == 0
    assert feature.folds_of(has_time=False) == 7
    assert feature.model_copy(update={"rows": "folds"}).folds_of(has_time=True) == 7
