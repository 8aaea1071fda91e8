"""The cheapest effort that finds enough is chosen, in few tries."""

from typing import Any

import pytest
import torch

from recsys.retrieval.index.effort import Effort, Ladder, cheapest, effort_of, frontier

BREADTHS, RERANKS = tuple(range(1, 33)), (1, 2, 4, 8)


class Known:
    """An index whose recall is known: what the lists hold, cut by what the codes confuse."""

    def __init__(self, ladder: Ladder) -> None:
        self.effort = Effort(1)
        self._ladder = ladder

    def ladder(self) -> Ladder:
        return self._ladder


class Telling:
    """Asks the index for its recall."""

    def __init__(self) -> None:
        self.asked: list[Effort] = []

    def recall(self, index: Any, k: int) -> float:
        assert k == 10
        self.asked.append(index.effort)
        return recall_of(index.effort)


def recall_of(effort: Effort) -> float:
    return (1 - 1 / (effort.breadth + 1)) * (1 - 0.2 / effort.rerank**2)


def cost(effort: Effort) -> float:
    return effort.breadth + 3 * effort.rerank


@pytest.mark.parametrize("wanted", [0.0, 0.5, 0.75, 0.9, 0.95])
def test_the_cheapest_of_all_that_suffice(wanted: float) -> None:
    truth: Any = Telling()
    index: Any = Known(Ladder("nprobe", BREADTHS, RERANKS, cost))
    chosen, recall = cheapest(index, truth, wanted)
    every = [Effort(b, r) for b in BREADTHS for r in RERANKS]
    enough = [one for one in every if recall_of(one) >= wanted]
    assert cost(chosen) == min(cost(one) for one in enough)
    assert recall == recall_of(chosen) >= wanted
    assert len(truth.asked) <= len(RERANKS) * 6
    assert len(set(truth.asked)) == len(truth.asked)


def test_where_nothing_suffices_the_best_is_told() -> None:
    truth: Any = Telling()
    index: Any = Known(Ladder("nprobe", BREADTHS, RERANKS, cost))
    chosen, recall = cheapest(index, truth, 0.999)
    assert (chosen, recall) == (Effort(32, 8), recall_of(Effort(32, 8)))
    assert {one.rerank for one in truth.asked} == {8}


def test_facts_are_read_again() -> None:
    graph, lists = Ladder("ef", (64,)), Ladder("nprobe", (1, 2), (1, 2))
    assert Effort(64).facts(graph) == {"ef": 64}
    assert Effort(2, 1).facts(lists) == {"nprobe": 2, "rerank": 1}
    assert effort_of({"nprobe": 2, "rerank": 4}, "nprobe") == Effort(2, 4)
    assert effort_of({"ef": 128}, "ef") == Effort(128)
    assert Effort(2, 4).text(lists) == "nprobe 2, rerank 4"


def test_all_that_was_tried_is_given() -> None:
    truth: Any = Telling()
    index: Any = Known(Ladder("ef", (1, 2, 3, 4, 5)))
    tried = list(frontier(index, truth, 0.6))
    assert [one.effort for one in tried] == truth.asked
    assert torch.tensor([one.recall for one in tried]).max() >= 0.6
