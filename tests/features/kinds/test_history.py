"""Histories: what the last items of the user were."""

import numpy as np
import pytest
import torch

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.encoding.hashing import NULL_HASH
from recsys.features.encoding.past import Pasts
from recsys.features.kinds.history import HistoryFeature

CASE = {
    "base": {"name": "f", "kind": "history", "of": "tags"},
    "values": {"of": ["tags", "brand", "item"], "last": [1, 2, 50]},
}
BRANDS = FeatureLayout((("brand", 3),), (), ())
CATALOGUE = FeatureBlock(torch.tensor([[10], [11], [12]]), (), torch.zeros(3, 0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[], [10], [10], [10, 10], [], [10], [10]]),
        ({"rows": "all"}, [[], [10], [10], [10, 11, 10], [], [10], [10, 12]]),
        ({"rows": "all", "last": 1}, [[], [10], [10], [10], [], [10], [12]]),
    ],
)
def test_the_last_items_before_each_row(
    options: dict[str, object], expected: list[list[int]], pasts: Pasts
) -> None:
    feature = HistoryFeature.model_validate({"name": "f", "of": "brand", **options})
    read = feature.reader(CATALOGUE, BRANDS, {})
    (found,) = read(pasts, np.arange(7), np.zeros(7, np.int64)).multi
    rows = [found.values[a:b].tolist() for a, b in found.offsets.unfold(0, 2, 1).tolist()]
    assert rows == [row or [NULL_HASH] for row in expected]
    layout = feature.layout(BRANDS)
    assert (layout.multi, layout.reads) == ((("f", 3),), (("f", "brand"),))
