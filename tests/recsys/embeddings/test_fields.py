"""Fields against the same written feature by feature."""

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.fields import Fields, dense_features

DENSE = ("price", "price.null", "plot.0", "plot.1", "plot.null", "a.b", "a.b.null")
MIXED = FeatureLayout((("user", 2), ("city", 1), ("shop", 2)), (("tags", 3), ("kind", 1)), DENSE)
EQUAL = FeatureLayout((("user", 3), ("city", 3)), (("tags", 3),), DENSE)


def by_hand(fields: Fields, layout: FeatureLayout, row: Tensor, dim: int) -> Tensor:
    """One row, one feature after the other; projections are taken in order of first use."""
    inputs = [m * dim for _, m in layout.features] + [n for _, n in dense_features(layout.dense)]
    kept = [m == 1 and fields.width == dim for _, m in layout.features] + [False] * len(inputs)
    seen: list[int] = []
    for place, size in enumerate(inputs):
        if not kept[place] and size not in seen:
            seen.append(size)
    used = dict.fromkeys(seen, 0)
    found, start = [], 0
    for place, size in enumerate(inputs):
        vector = row[start : start + size]
        start += size
        if not kept[place]:
            matrix = fields.projections[seen.index(size)][used[size]]
            used[size] += 1
            vector = vector @ matrix
        found.append(vector)
    return torch.stack(found)


@pytest.mark.parametrize(("dim", "width"), [(4, 4), (4, 6), (5, 3)])
def test_unlike_widths_become_one(dim: int, width: int) -> None:
    fields = Fields(MIXED, dim=dim, width=width)
    rows = torch.randn(3, MIXED.num_lookups * dim + len(DENSE))
    expected = torch.stack([by_hand(fields, MIXED, row, dim) for row in rows])
    torch.testing.assert_close(fields(rows), expected)
    assert fields.names == ("user", "city", "shop", "tags", "kind", "price", "plot", "a.b")


def test_a_number_is_its_value_times_a_vector_and_null_has_its_own() -> None:
    layout = FeatureLayout((("user", 1),), (), ("price", "price.null"))
    fields = Fields(layout, dim=3, width=3)
    (value, null) = fields.projections[0][0]
    user = torch.tensor([1.0, 2.0, 3.0])
    found = fields(torch.stack([torch.cat([user, torch.tensor(x)]) for x in ([2.5, 0], [0, 1])]))
    torch.testing.assert_close(found[0], torch.stack([user, 2.5 * value]))
    torch.testing.assert_close(found[1], torch.stack([user, null]))


def test_lookups_add_up() -> None:
    fields = Fields(EQUAL, dim=2, width=2, combine="sum")
    row = torch.randn(1, 18 + len(DENSE))
    found = fields(row)[0]
    expected = row[0, :18].view(3, 3, 2).sum(1)
    torch.testing.assert_close(found[:3], expected)
    torch.testing.assert_close(found[3], row[0, 18:20] @ fields.projections[0][0])
    assert len(found) == 6


def test_a_feature_of_one_lookup_keeps_its_vector() -> None:
    layout = FeatureLayout((("user", 1), ("city", 1)), (), ())
    fields = Fields(layout, dim=3, width=3)
    rows = torch.randn(4, 6)
    assert torch.equal(fields(rows), rows.view(4, 2, 3))
    assert not list(fields.parameters())


def test_columns_that_stand_in_order_are_not_copied() -> None:
    layout = FeatureLayout((("user", 1), ("city", 1)), (), ())
    rows = torch.randn(4, 6)
    assert Fields(layout, dim=3, width=3)(rows).data_ptr() == rows.data_ptr()


def test_sums_of_unlike_lookups_are_refused() -> None:
    with pytest.raises(ConfigError, match="equal multiplicities, got user 2, city 1"):
        Fields(MIXED, dim=4, width=4, combine="sum")
    with pytest.raises(ConfigError, match=r"embedding\.dim wide, 4, not 8"):
        Fields(EQUAL, dim=4, width=8, combine="sum")
    with pytest.raises(ValueError, match="no null indicator"):
        dense_features(("price",))
