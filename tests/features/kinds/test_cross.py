"""Crosses: several values of a row as one."""

import torch

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.features.kinds.cross import CrossFeature

CASE = {
    "base": {"name": "f", "kind": "cross", "of": ["brand", "tags"]},
    "values": {
        "of": [["brand", "tags"], ["tags", "brand"], ["brand", "user"]],
        "multiplicity": [4, 5, "auto"],
    },
}
COLUMNS = FeatureLayout((("a", 1), ("b", 1)), (("tags", 1),), ())


def test_a_cross_has_a_value_for_each_pair() -> None:
    tags = Jagged(torch.tensor([7, 8, 7]), torch.tensor([0, 2, 3]), torch.tensor([0.5, 2.0, 1.0]))
    block = FeatureBlock(torch.tensor([[1, 2], [1, 3]]), (tags,), torch.zeros(2, 0))
    with_list = CrossFeature(name="f", of=("a", "tags"), pooling="sum", multiplicity=2)
    (found,) = with_list.encode(block, COLUMNS).multi
    first, second, again = found.values.tolist()
    assert first == again  # 1 and 7 in both rows
    assert first != second
    assert found.offsets.tolist() == [0, 2, 3]
    assert found.weights is tags.weights
    assert with_list.layout(COLUMNS).multi == (("f", 2),)
    single = CrossFeature(name="f", of=("a", "b"))
    values = single.encode(block, COLUMNS).single
    assert values.shape == (2, 1)
    assert values[0] != values[1]
    assert single.layout(COLUMNS).single == (("f", 1),)


def test_as_many_values_as_pairs_but_not_more_than_rows() -> None:
    sizes = {"a": 3, "b": 5}
    cross = CrossFeature(name="f", of=("a", "b"))
    assert cross.num_values(sizes.__getitem__, 100) == 15
    assert cross.num_values(sizes.__getitem__, 10) == 10
    assert cross.shown({"a": "red", "b": "null"}) == "red x null"
