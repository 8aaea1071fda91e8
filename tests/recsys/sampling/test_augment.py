"""Augmented views: what is masked and dropped, and that nothing else is touched."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.metrics.information import excess_information
from recsys.sampling.augment import (
    MASK_HASH,
    categories,
    correlated_masks,
    dropped,
    feature_dropout,
    feature_names,
    fully_masked,
    masked,
    random_mask,
    two_views,
)

LAYOUT = FeatureLayout(
    (("user", 2), ("city", 1)),
    (("tags", 1), ("words", 3)),
    ("price", "price.null", "plot.0", "plot.1", "plot.null"),
)
FEATURES = 6


def jagged(lists: list[list[int]], *, weighted: bool = False) -> Jagged:
    values = torch.tensor([value for row in lists for value in row], dtype=torch.int64)
    offsets = torch.tensor([0, *np.cumsum([len(row) for row in lists])])
    return Jagged(values, offsets, torch.rand(len(values)) + 0.5 if weighted else None)


def rows_of(one: Jagged) -> list[list[int]]:
    ends = one.offsets.tolist()
    return [one.values[a:b].tolist() for a, b in pairwise(ends)]


def weights_of(one: Jagged) -> list[list[float]]:
    assert one.weights is not None
    return rows_of(Jagged(one.weights, one.offsets))


def block() -> FeatureBlock:
    return FeatureBlock(
        torch.arange(10).view(5, 2),
        (
            jagged([[1], [2, 3, 4], [5, 6], [7], [8, 9]]),
            jagged([[1, 1], [2], [3, 4, 5], [6], [7]], weighted=True),
        ),
        torch.randn(5, 5),
    )


def mask_by_hand(before: FeatureBlock, mask: list[list[bool]]) -> dict[str, object]:
    """Row by row and feature by feature, in lists."""
    single, dense = before.single.tolist(), before.dense.tolist()
    multi = [rows_of(one) for one in before.multi]
    weights = weights_of(before.multi[1])
    for n, hidden in enumerate(mask):
        for f in (0, 1):
            single[n][f] = MASK_HASH if hidden[f] else single[n][f]
        for f in (0, 1):
            multi[f][n] = [MASK_HASH] if hidden[2 + f] else multi[f][n]
        weights[n] = [1.0] if hidden[3] else weights[n]
        dense[n][:2] = [0.0, 1.0] if hidden[4] else dense[n][:2]
        dense[n][2:] = [0.0, 0.0, 1.0] if hidden[5] else dense[n][2:]
    return {"single": single, "multi": multi, "weights": weights, "dense": dense}


def in_lists(one: FeatureBlock) -> dict[str, object]:
    return {
        "single": one.single.tolist(),
        "multi": [rows_of(bags) for bags in one.multi],
        "weights": weights_of(one.multi[1]),
        "dense": one.dense.tolist(),
    }


@pytest.mark.parametrize("seed", range(20))
def test_what_is_masked_is_masked_and_nothing_else_is_touched(seed: int) -> None:
    before = block()
    kept = in_lists(before)
    mask = torch.rand(5, FEATURES, generator=torch.Generator().manual_seed(seed)) < 0.5
    assert in_lists(masked(before, mask, LAYOUT)) == mask_by_hand(before, mask.tolist())
    assert in_lists(before) == kept


def hidden(one: FeatureBlock) -> Tensor:
    """Which features of each row hold what a masked one holds, (N, 6)."""
    bags = [[row == [MASK_HASH] for row in rows_of(feature)] for feature in one.multi]
    columns = [one.single == MASK_HASH, torch.tensor(bags).T]
    for part in (one.dense[:, :2], one.dense[:, 2:]):
        null = torch.tensor([0.0] * (part.shape[1] - 1) + [1.0])
        columns.append((part == null).all(1, keepdim=True))
    return torch.cat(columns, dim=1)


def test_every_feature_is_masked_in_exactly_one_view() -> None:
    before, mask = block(), torch.tensor([True, False, False, True, True, False])
    views = two_views(before, mask, LAYOUT)
    first, second = views.take(torch.arange(5)), views.take(torch.arange(5, 10))
    assert torch.equal(hidden(first), mask.expand(5, -1))
    assert torch.equal(hidden(second), ~mask.expand(5, -1))
    assert in_lists(masked(before, hidden(first), LAYOUT)) == in_lists(first)
    assert in_lists(masked(before, hidden(second), LAYOUT)) == in_lists(second)


def test_rows_that_say_nothing_are_rows_with_all_masked() -> None:
    before = block()
    bags = tuple(Jagged(one.values, one.offsets) for one in before.multi)
    plain = FeatureBlock(before.single, bags, before.dense)
    blank, all_hidden = fully_masked(LAYOUT, 5), masked(plain, torch.ones(5, 6).bool(), LAYOUT)
    assert hidden(blank).all()
    assert torch.equal(blank.single, all_hidden.single)
    assert torch.equal(blank.dense, all_hidden.dense)
    for one, other in zip(blank.multi, all_hidden.multi, strict=True):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.offsets, other.offsets)
    nothing = fully_masked(FeatureLayout((), (), ()), 3)
    assert (nothing.single.shape, nothing.multi, nothing.dense.shape) == ((3, 0), (), (3, 0))


def test_a_mask_of_another_shape_is_refused() -> None:
    assert feature_names(LAYOUT) == ("user", "city", "tags", "words", "price", "plot")
    with pytest.raises(ValueError, match=r"mask of \(5, 7\) for rows and features \(5, 6\)"):
        masked(block(), torch.zeros(5, 7).bool(), LAYOUT)


def numbered(one: FeatureBlock) -> FeatureBlock:
    """The same rows with weights that are the values: a weight must go where its value goes."""
    multi = tuple(Jagged(bags.values, bags.offsets, bags.values.float()) for bags in one.multi)
    return FeatureBlock(one.single, multi, one.dense)


def test_dropout_leaves_values_in_order_and_at_least_one() -> None:
    before = numbered(block())
    for _ in range(50):
        after = dropped(before, 0.6)
        assert torch.equal(after.single, before.single)
        assert torch.equal(after.dense, before.dense)
        for new, old in zip(after.multi, before.multi, strict=True):
            assert torch.equal(new.values.float(), new.weights)  # type: ignore[arg-type]
            for few, all_ in zip(rows_of(new), rows_of(old), strict=True):
                assert 1 <= len(few) <= len(all_)
                remaining = iter(all_)
                assert all(value in remaining for value in few)  # a subsequence
    alone = dropped(before, 1 - 1e-9)
    assert all((bags.lengths() == 1).all() for bags in alone.multi)
    assert dropped(before, 0.0) is before


def test_dropout_takes_its_share_and_spares_every_value_alike() -> None:
    rows, length, probability = 4_000, 5, 0.7
    values = torch.arange(length).repeat(rows)
    bags = Jagged(values, torch.arange(rows + 1) * length)
    after = dropped(FeatureBlock(torch.zeros(rows, 0), (bags,), torch.zeros(rows, 0)), probability)
    kept = torch.bincount(after.multi[0].values, minlength=length) / rows
    # A row that loses all its values gets one of them back.
    expected = (1 - probability) + probability**length / length
    deviation = (expected * (1 - expected) / rows) ** 0.5
    assert (kept - expected).abs().max() < 4 * deviation


def test_feature_dropout_masks_each_feature_of_each_row_alike_but_never_all() -> None:
    one = block().take(torch.arange(len(block())).repeat(2000))
    found = hidden(feature_dropout(one, 0.3, LAYOUT)).float()
    assert float((found.mean(0) - 0.3).abs().max()) < 0.03
    together = (found[:, :-1] * found[:, 1:]).mean(0)  # each is drawn by itself
    assert float((together - 0.09).abs().max()) < 0.03
    most = hidden(feature_dropout(one, 0.999, LAYOUT))
    assert int((~most).sum(1).min()) == 1


def test_random_masking_hides_half_and_each_feature_as_often() -> None:
    for count in (2, 3, 7, 8):
        masks = torch.stack([random_mask(count) for _ in range(2_000)])
        assert (masks.sum(1) == count // 2).all()
        share = count // 2 / count
        deviation = (share * (1 - share) / 2_000) ** 0.5
        assert (masks.float().mean(0) - share).abs().max() < 5 * deviation


def test_correlated_masking_hides_the_planted_companions_of_the_seed() -> None:
    """Six columns in two families of three, beside a noisy copy in neither: floor(7 / 2) = 3."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 8, (2, 5_000))
    noise = [rng.random(5_000) < share for share in (0.1, 0.3, 0.5, 0.1, 0.3, 0.5)]
    parents = (first, second, first, second, first, second)
    columns = [
        np.where(lost, rng.integers(0, 8, 5_000), parent)
        for lost, parent in zip(noise, parents, strict=True)
    ]
    columns.append(np.arange(5_000))  # an id says nothing that a sample could show
    masks = correlated_masks(excess_information(columns))
    for seed in range(6):
        family = {column for column in range(6) if column % 2 == seed % 2}
        chosen = set(torch.nonzero(masks[seed]).flatten().tolist())
        assert family < chosen
        assert len(chosen) == 4
    assert bool(masks[6, 6])


def test_correlated_masking_leaves_a_feature_for_either_view() -> None:
    told = np.array([[9.0, 1, 2], [1, 9, 3], [2, 3, 9]])
    expected = torch.tensor([[True, False, True], [False, True, True], [False, True, True]])
    assert torch.equal(correlated_masks(told), expected)
    assert torch.equal(correlated_masks(told[:2, :2]), torch.eye(2).bool())
    with pytest.raises(ValueError, match="2 features or more, not 1"):
        correlated_masks(told[:1, :1])


def test_every_feature_becomes_one_category() -> None:
    bags = jagged([[3, 5], [5, 3], [3], [4, 4], [5, 3]])
    number = torch.tensor([0.0, 1, 2, 3, 0])
    null = torch.tensor([0.0, 0, 0, 0, 1])
    plot = torch.tensor([[1.0, 0], [1, 9], [8, 0], [8, 9], [1, 0]])
    dense = torch.cat([number[:, None], null[:, None], plot, torch.zeros(5, 1)], dim=1)
    mixed = FeatureBlock(
        torch.tensor([[7, 1], [7, 2], [8, 1], [7, 1], [8, 3]]), (bags, bags), dense
    )
    user, city, tags, words, price, vector = categories(mixed, LAYOUT)
    assert user.tolist() == [7, 7, 8, 7, 8]
    assert city.tolist() == [1, 2, 1, 1, 3]
    assert np.array_equal(tags, words)
    same = tags[:, None] == tags
    assert same.astype(int).tolist() == [
        [1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert len(set(price.tolist())) == 5  # null is none of the numbers, and none of them is null
    assert (np.diff(price[:4]) > 0).all()
    assert vector[0] == vector[4]
    assert len(set(vector[:4].tolist())) == 4


def test_bins_hold_as_many_rows_each() -> None:
    layout = FeatureLayout((), (), ("price", "price.null"))
    price = torch.randn(1_600, generator=torch.Generator().manual_seed(0)).exp()
    dense = torch.stack([price, torch.zeros(1_600)], dim=1)
    (bins,) = categories(FeatureBlock(torch.zeros(1_600, 0), (), dense), layout)
    assert sorted(np.unique(bins, return_counts=True)[1].tolist()) == [100] * 16


@pytest.mark.parametrize("often", [0.0, 1.0])
def test_a_rare_number_keeps_a_bin_beside_one_that_most_rows_hold(often: float) -> None:
    layout = FeatureLayout((), (), ("flag", "flag.null"))
    flag = torch.full((100, 1), often)
    flag[7] = 1 - often
    dense = torch.cat([flag, torch.zeros(100, 1)], dim=1)
    (bins,) = categories(FeatureBlock(torch.zeros(100, 0), (), dense), layout)
    assert sorted(np.unique(bins, return_counts=True)[1].tolist()) == [1, 99]
    assert np.flatnonzero(bins == bins[7]).tolist() == [7]


def test_numbers_that_are_never_there_are_one_category() -> None:
    layout = FeatureLayout((), (), ("price", "price.null"))
    dense = torch.zeros(1_600, 2)
    dense[:, 1] = 1
    (bins,) = categories(FeatureBlock(torch.zeros(1_600, 0), (), dense), layout)
    assert set(bins.tolist()) == {-1}
