"""How much an approximate search does, and the least of it that finds enough."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from recsys.retrieval.index.protocol import Index
from recsys.retrieval.index.recall import Truth


@dataclass(frozen=True)
class Effort:
    """Of a search for ten items.

    breadth: what the library looks at: candidates that a walk keeps, lists that are opened.
    rerank: how many times the items asked for are scored by their exact vectors; 1: those alone
    that are returned.
    """

    breadth: int
    rerank: int = 1

    def facts(self, ladder: "Ladder") -> dict[str, int]:
        """Return it by the names that the library uses."""
        found = {ladder.name: self.breadth}
        return found if ladder.reranks == (1,) else {**found, "rerank": self.rerank}

    def text(self, ladder: "Ladder") -> str:
        """Return the same for a message."""
        return ", ".join(f"{name} {value}" for name, value in self.facts(ladder).items())


def effort_of(facts: Mapping[str, Any], name: str) -> Effort:
    """Return the effort that `Effort.facts` wrote."""
    return Effort(facts[name], facts.get("rerank", 1))


@dataclass(frozen=True)
class Ladder:
    """The efforts that are tried: each breadth with each depth of re-ranking, ascending.

    name: what the library calls its breadth. cost: of an effort, in any unit: by which the
    cheapest is chosen, so that the same vectors lead to the same choice on any machine.
    """

    name: str
    breadths: tuple[int, ...]
    reranks: tuple[int, ...] = (1,)
    cost: Callable[[Effort], float] = lambda effort: effort.breadth


class Adjustable(Index, Protocol):
    """An index whose effort can be set."""

    effort: Effort

    def ladder(self) -> Ladder:
        """Return the efforts that are tried."""


@dataclass(frozen=True)
class Tried:
    """An effort and its recall@10."""

    effort: Effort
    recall: float


def frontier(index: Adjustable, truth: Truth, min_recall: float) -> Iterator[Tried]:
    """Try efforts; for each depth of re-ranking the least breadth that finds enough is among them.

    Broader and deeper searches find more, so breadths are halved between: all that was tried is
    given back. `index.effort` is changed.
    """
    ladder = index.ladder()
    least = 0
    for rerank in reversed(ladder.reranks):
        low, high = least, len(ladder.breadths) - 1
        found: dict[int, float] = {}
        while (at := (low + high) // 2) not in found:
            index.effort = Effort(ladder.breadths[at], rerank)
            found[at] = truth.recall(index, 10)
            yield Tried(index.effort, found[at])
            low, high = (low, at) if found[at] >= min_recall else (min(at + 1, high), high)
        if found[high] < min_recall:
            return  # less re-ranking finds no more
        least = high


def cheapest(index: Adjustable, truth: Truth, min_recall: float) -> tuple[Effort, float]:
    """Return the cheapest effort that reaches `min_recall` and its recall@10; else the best one."""
    ladder, tried = index.ladder(), list(frontier(index, truth, min_recall))
    enough = [one for one in tried if one.recall >= min_recall]
    if enough:
        best = min(enough, key=lambda one: ladder.cost(one.effort))
    else:
        best = max(tried, key=lambda one: one.recall)
    return best.effort, best.recall
