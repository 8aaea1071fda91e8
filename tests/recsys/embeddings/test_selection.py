"""Soft selection: written feature by feature, its pruning to a budget, what it recommends."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.selection import (
    GatedEmbedding,
    SoftSelection,
    evenly,
    normalised,
    pruned,
    recommended,
    stepped,
)
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding

LAYOUT = FeatureLayout((("user", 3), ("city", 1)), (("tags", 2),), ("age", "age.null"))
NAMES = ("user", "user", "user", "city", "tags", "tags")


def gated() -> GatedEmbedding:
    config = TableConfig(num_rows=50, dim=2, backend="torch")
    table = build_table(config, device=torch.device("cpu"), seed=0)
    return GatedEmbedding(UnifiedEmbedding(EmbeddingPlan.of(config, (LAYOUT,)), table))


def block() -> FeatureBlock:
    tags = Jagged(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 3]))
    return FeatureBlock(torch.tensor([[5, 6], [7, 8]]), (tags,), torch.randn(2, 2))


def test_gates_multiply_each_lookup_of_each_feature() -> None:
    selection = SoftSelection(LAYOUT, dim=2)
    assert selection.features == NAMES
    selection.gates_LD.copy_(torch.rand(6, 2))
    row = torch.randn(1, 14)
    expected, at = [], 0
    for lookup in range(6):
        for place in range(2):
            expected.append(row[0, at] * selection.gates_LD[lookup, place])
            at += 1
    expected += [row[0, 12], row[0, 13]]
    torch.testing.assert_close(selection(row)[0], torch.stack(expected))


def test_open_gates_change_nothing_and_their_step_leaves_the_table() -> None:
    embedding, features = gated(), block()
    (plain,) = embedding.embedding([features])
    torch.testing.assert_close(embedding([features])[0], plain)
    before = embedding.embedding.table.weight.clone()
    embedding.selection.gates_LD.requires_grad_(True)
    embedding([features])[0].square().sum().backward()
    assert torch.equal(embedding.embedding.table.weight, before)
    assert embedding.selection.gates_LD.grad is not None
    embedding.selection.gates_LD.requires_grad_(False)
    embedding([features])[0].square().sum().backward()
    assert not torch.equal(embedding.embedding.table.weight, before)


def test_the_gradient_has_one_size_for_every_feature() -> None:
    gradient = torch.tensor([[1.0, -3.0], [2.0, 2.0], [0.0, 4.0], [50.0, -10], [0, 0], [0, 0]])
    found = normalised(gradient, NAMES)
    torch.testing.assert_close(found[:3], gradient[:3] / 2)  # mean size (1+3+2+2+0+4) / 6
    torch.testing.assert_close(found[3], gradient[3] / 30)
    assert found[4:].abs().sum() == 0


def test_gates_stay_between_0_and_1() -> None:
    found = stepped(torch.tensor([0.1, 0.5, 0.99]), torch.tensor([2.0, -1.0, -1.0]), 0.1)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.6, 1.0]))


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(0, 6))
def test_pruning_keeps_as_many_as_it_should_and_the_strongest(
    strength: list[int], kept: int
) -> None:
    values = torch.tensor(strength, dtype=torch.float32).view(3, 2)
    mask = pruned(values, kept)
    assert int(mask.sum()) == kept
    if 0 < kept < 6:
        assert values[mask].min() >= values[~mask].max()


def test_the_best_lookups_make_the_plan() -> None:
    score = torch.tensor([5.0, 4.0, 0.1, 3.0, -1.0, -2.0])
    strength = torch.tensor([[9.0, 8], [7, 0], [0, 0], [6, 5], [4, 0], [0, 0]])
    found = recommended(NAMES, score, torch.ones(6, 2), strength, 4)
    assert {one.feature: one.multiplicity for one in found} == {"user": 2, "city": 1, "tags": 1}
    assert [one.earned for one in found] == [3, 1, 0]  # of the four best, not one is of the tags
    assert [one.kept_dims for one in found] == [5, 2, 1]  # 8 entries, two of them zeros
    assert [one.gate_mass for one in found] == [6, 2, 4]


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.integers(3, 6))
def test_a_plan_spends_its_budget(score: list[float], lookups: int) -> None:
    found = recommended(NAMES, torch.tensor(score), torch.ones(6, 1), torch.ones(6, 1), lookups)
    assert sum(one.multiplicity for one in found) == lookups
    limits = {"user": 3, "city": 1, "tags": 2}
    assert all(1 <= one.multiplicity <= limits[one.feature] for one in found)


def test_budgets_that_cannot_be_kept_are_refused() -> None:
    one = torch.ones(6, 1)
    for lookups in (2, 7):
        with pytest.raises(ValueError, match="must be between 3 and 6 for these 3 features"):
            recommended(NAMES, torch.ones(6), one, one, lookups)
    with pytest.raises(ValueError, match="cannot keep 7 of 6"):
        pruned(torch.ones(6, 1), 7)


def test_even_shares_give_the_rest_to_the_largest() -> None:
    assert evenly({"a": 5, "b": 100, "c": 10}, 8) == {"a": 2, "b": 3, "c": 3}
