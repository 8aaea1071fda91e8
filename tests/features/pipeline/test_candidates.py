"""Candidates of several sources: joined, ordered, and scored by every way of fusing them."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys.core.errors import ConfigError
from recsys.data.batch import Jagged
from recsys.features.pipeline import facts as facts_module
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.facts import Attribute, ItemFacts
from recsys.features.pipeline.fusing import FUSIONS, fit_fusion, input_names, inputs_of
from recsys.features.pipeline.model import JoinedModel
from recsys.features.pipeline.trees import RankingTrees
from recsys.pipeline.config import (
    Calibrated,
    Learned,
    PipelineConfig,
    ReciprocalRank,
    RoundRobin,
    Trees,
)

ITEMS = 9
COUNTS = np.array([5, 0, 3, 9, 1, 2, 0, 4, 7])


def lists(*of_each: list[list[int]], seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Lists of each source, with falling scores."""
    rng, found = np.random.default_rng(seed), []
    for one in of_each:
        width = max(map(len, one))
        rows = torch.tensor([row + [-1] * (width - len(row)) for row in one]).long()
        scores = torch.tensor(-np.sort(-rng.normal(size=rows.shape))).float()
        found.append((torch.where(rows >= 0, scores, -torch.inf), rows))
    return found


TWO = lists([[3, 1, 4], [], [2, 8]], [[1, 5], [7], [2, 6]])


def test_items_are_joined_with_the_place_that_each_source_gives_them() -> None:
    found = Candidates.of(TWO, ITEMS, [3, 2])
    assert found.items.values.tolist() == [1, 3, 4, 5, 7, 2, 6, 8]
    assert found.items.offsets.tolist() == [0, 4, 5, 8]
    assert found.rank.tolist() == [[2, 1], [1, 0], [3, 0], [0, 2], [0, 1], [1, 1], [0, 2], [2, 0]]
    assert found.score[1, 0] == TWO[0][0][0, 0]
    own = TWO[0][0][0].numpy()
    assert found.position[0, 0] == pytest.approx((own[1] - own.mean()) / own.std(), abs=1e-5)
    assert found.position[4].tolist() == [0, 0]  # a list of one has no deviation
    assert (found.score[found.rank == 0] == 0).all()


def test_they_are_ordered_request_by_request_and_ties_go_to_the_smaller_item() -> None:
    found = Candidates.of(TWO, ITEMS, [3, 2])
    score = np.array([1.0, 5.0, 5.0, 0.0, 2.0, 3.0, 9.0, 3.0])
    scores, rows, chosen = found.ordered(score, 3)
    assert rows.tolist() == [[3, 4, 1], [7, -1, -1], [6, 2, 8]]
    assert scores[1].tolist() == [2.0, -np.inf, -np.inf]
    assert chosen.tolist() == [[1, 2, 0], [4, -1, -1], [6, 5, 7]]
    kept = found.take(found.ordered(score, 2)[2])
    assert kept.items.values.tolist() == [3, 4, 7, 2, 6]
    assert kept.rank.tolist() == [[1, 0], [3, 0], [0, 1], [1, 1], [0, 2]]
    empty = Candidates.of(lists([[], []], [[], []]), ITEMS, [3, 2])
    assert empty.ordered(np.zeros(0), 2)[1].tolist() == [[-1, -1], [-1, -1]]


def test_ranks_are_summed_or_taken_in_turn() -> None:
    found = Candidates.of(TWO, ITEMS, [3, 2])
    nothing = np.zeros(8)
    ranks = fit_fusion(ReciprocalRank(constant=9.0), found, COUNTS, nothing)
    wanted = [1 / 11 + 1 / 10, 1 / 10, 1 / 12, 1 / 11, 1 / 10, 2 / 10, 1 / 11, 1 / 11]
    assert ranks.score(found, COUNTS).tolist() == pytest.approx(wanted)
    turns = fit_fusion(RoundRobin(), found, COUNTS, nothing)
    order = found.ordered(turns.score(found, COUNTS), 4)[1]
    assert order.tolist() == [[3, 1, 5, 4], [7, -1, -1, -1], [2, 8, 6, -1]]


@pytest.mark.parametrize("settings_of", [Learned(), Learned(l2=0.0), Calibrated()])
def test_what_is_learnt_prefers_the_source_that_was_right(settings_of: Any) -> None:
    rng = np.random.default_rng(3)
    many = lists(
        [rng.permutation(ITEMS)[:4].tolist() for _ in range(300)],
        [rng.permutation(ITEMS)[:4].tolist() for _ in range(300)],
        seed=1,
    )
    found = Candidates.of(many, ITEMS, [4, 4])
    right = (found.rank[:, 1] == 1) & (rng.random(len(found.rank)) < 0.7)
    fusion = fit_fusion(settings_of, found, COUNTS, right.astype(float))
    score = fusion.score(found, COUNTS)
    assert ((score > 0) & (score < 1)).all()
    assert score[right].mean() > 2 * score[~right].mean()
    first = found.ordered(score, 1)[1][:, 0]
    assert (first == many[1][1][:, 0]).float().mean() > 0.95
    parts = fusion.parts(found, COUNTS)
    assert parts.shape == (len(score), 3)
    if isinstance(settings_of, Learned):
        assert score.mean() == pytest.approx(right.mean(), abs=0.02)
        constant = np.log(score / (1 - score)) - parts.sum(1)
        assert constant == pytest.approx(np.full(len(score), constant[0]), abs=1e-6)


def test_without_a_right_candidate_the_base_rate_is_all_that_is_learnt() -> None:
    found = Candidates.of(TWO, ITEMS, [3, 2])
    fusion = fit_fusion(Learned(), found, COUNTS, np.zeros(8))
    assert set(np.round(fusion.score(found, COUNTS), 6)) == {round(0.5 / 9, 6)}


def test_inputs_say_of_each_source_whether_and_where_it_names_an_item() -> None:
    found = Candidates.of(TWO, ITEMS, [3, 2])
    names, inputs = input_names(("one", "other")), inputs_of(found, COUNTS)
    assert inputs.shape == (8, len(names))
    row = dict(zip(names, inputs[2], strict=True))  # item 4 of the first request
    assert (row["one named"], row["other named"], row["other rank"]) == (1, 0, 0)
    assert row["one rank"] == pytest.approx(np.log(4 / 3))
    assert row["one first places"] == pytest.approx(1 / np.sqrt(3))
    assert (row["popularity"], row["is new"]) == (pytest.approx(np.log(2)), 0)
    assert dict(zip(names, inputs[6], strict=True))["is new"] == 1  # item 6 has no row


def facts() -> ItemFacts:
    rows = sparse.csr_array(np.eye(3, dtype=np.float32)[np.arange(ITEMS) % 3])
    numbers = np.arange(ITEMS, dtype=np.float32)[:, None]
    return ItemFacts(COUNTS.astype(np.int64), numbers, (Attribute(rows),))


def test_facts_say_how_much_of_the_history_is_like_a_candidate() -> None:
    history = Jagged.of_lengths(np.array([0, 3, 4, 2]), np.array([3, 0, 1]))
    found = facts().of(Jagged.of_lengths(np.array([6, 1, 5, 8]), np.array([2, 1, 1])), history)
    # Items 0, 3 and 6 share a value, as do 1 and 4, and 2, 5 and 8.
    assert found[:, 0].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 1])
    assert found[:, 1].tolist() == [6, 1, 5, 8]
    assert found[:, 2].tolist() == pytest.approx([np.log(4), np.log(4), 0, np.log(2)])


@pytest.mark.parametrize("cells", [1, 10, 1 << 22])
def test_shares_are_the_product_of_history_and_attributes(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items of no, one and several values; requests a few at a time, or all at once."""
    monkeypatch.setattr(facts_module, "_CELLS", cells)
    rng = np.random.default_rng(0)
    ones = (rng.random((ITEMS, 5)) < 0.4).astype(np.float32)
    ones[2] = 0
    lengths = np.array([3, 0, 4, 1])
    history = Jagged.of_lengths(rng.integers(ITEMS, size=8), lengths)
    asked = Jagged.of_lengths(rng.integers(ITEMS, size=14), np.array([5, 6, 0, 3]))
    found = Attribute(sparse.csr_array(ones)).shares(asked, history)
    owner, events = history.owners().numpy(), history.values.numpy()
    liked = [ones[events[owner == one]].sum(0) / max(lengths[one], 1) for one in range(4)]
    pairs = zip(asked.owners().tolist(), asked.values.tolist(), strict=True)
    assert found.tolist() == pytest.approx([liked[one] @ ones[item] for one, item in pairs])


@settings(max_examples=20)
@given(st.sampled_from([*FUSIONS]), st.integers(0, 99))
def test_what_is_kept_joins_as_before(kind: str, seed: int) -> None:
    many = lists([[3, 1, 4], [5], [2, 8]], [[1, 5], [7], [2, 6]], seed=seed)
    found = Candidates.of(many, ITEMS, [3, 2])
    raw = {"sources": [{"model": {"kind": "ease"}}, {"model": {"kind": "markov"}}], "fuse": kind}
    config = PipelineConfig.model_validate_json(json.dumps(raw))
    hit = (np.arange(len(found.rank)) % 2).astype(float)
    model = JoinedModel(
        fit_fusion(config.fuse, found, COUNTS, hit), facts(), np.array([1, 6]), None, 0
    )
    again = JoinedModel.from_bytes(config, model.to_bytes())
    assert again.fused(found, 4).scores.tolist() == model.fused(found, 4).scores.tolist()
    assert again.new.tolist() == [1, 6]


def test_what_rankers_read_is_grouped_by_who_says_it() -> None:
    found = Candidates.of(TWO, ITEMS, [3, 2])
    model = JoinedModel(FUSIONS["round_robin"][0](), facts(), np.zeros(0, np.int64), None, 0)
    names, groups = model.names(["a", "b"]), model.groups(2)
    history = Jagged.of_lengths(np.array([1, 2]), np.array([1, 0, 1]))
    assert model.inputs(found, history).shape == (8, len(names))
    assert sorted(column for group in groups for column in group) == list(range(len(names)))
    said = [[names[column] for column in group] for group in groups]
    assert said[0] == ["a named", "a rank", "a first places", "a score", "a raw score"]
    assert said[1] == [name.replace("a ", "b ", 1) for name in said[0]]
    assert [name.split()[0] for name in said[2]] == ["popularity", "is", "number"]
    assert [name.split()[0] for name in said[3]] == ["attribute", "history"]


def test_trees_learn_what_is_right_and_are_kept_as_text() -> None:
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3000, 3))
    hit = (inputs[:, 1] > 1.2).astype(float)
    lengths = np.full(300, 10)
    sizes = Trees(trees=20, leaves=4, least_rows=5)
    trees = RankingTrees.fit(sizes, inputs, hit, lengths, 0)
    again, unread = RankingTrees(trees.text), Candidates.of(TWO, ITEMS, [3, 2])
    score = again.score(unread, inputs)
    assert (score == trees.score(unread, inputs)).all()
    parts = again.parts(unread, inputs, None, [[0, 2], [1]])
    assert np.ptp(score - parts.sum(1)) < 1e-9  # a constant
    assert parts[:, 1].std() > 3 * parts[:, 0].std()
    assert score[hit > 0].min() > np.median(score)
    assert next(iter(again.gains(["a", "b", "c"]))) == "b"
    assert again.score(unread, np.zeros((0, 3))).tolist() == []
    with pytest.raises(ConfigError, match="too few validation requests"):
        RankingTrees.fit(sizes, inputs, np.zeros(3000), lengths, 0)


@pytest.mark.parametrize("kind", list(FUSIONS))
def test_no_candidates_at_all_have_no_scores(kind: str) -> None:
    settings_of = {
        "learned": Learned(),
        "calibrated": Calibrated(),
        "reciprocal_rank": ReciprocalRank(),
        "round_robin": RoundRobin(),
    }
    found = Candidates.of(TWO, ITEMS, [3, 2])
    hit = np.array([1, 0, 0, 0, 1, 0, 0, 0.0])
    fusion = fit_fusion(settings_of[kind], found, COUNTS, hit)
    none = Candidates.of(lists([[-1], [-1]], [[-1], [-1]]), ITEMS, [3, 2])
    assert fusion.score(none, COUNTS).shape == (0,)
    assert fusion.parts(none, COUNTS).shape == (0, 3)


@given(st.integers(0, 1), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_source_that_is_better_alone_keeps_its_order_before_what_the_others_name(
    only: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    each = [
        [rng.permutation(ITEMS)[: rng.integers(1, 5)].tolist() for _ in range(4)] for _ in range(2)
    ]
    found = Candidates.of(lists(*each, seed=seed), ITEMS, [4, 4])
    hit = (rng.random(len(found.rank)) < 0.4).astype(float)  # also against the order of the source
    fusion = fit_fusion(Learned(), found, COUNTS, hit, only)
    rows = found.ordered(fusion.score(found, COUNTS), 8)[1]
    for request, own in enumerate(each[only]):
        assert rows[request, : len(own)].tolist() == own
        others = set(each[1 - only][request]) - set(own)
        assert set(rows[request, len(own) :].tolist()) - {-1} == others
    parts = fusion.parts(found, COUNTS)
    assert (parts[:, 1 - only] == 0).all()
    assert (parts[:, -1] == 0).all()
