"""Why a list is shorter than it was asked to be."""

import numpy as np
from numpy.typing import NDArray

from recsys.data.batch import Jagged
from recsys.retrieval.passing import Passing
from recsys.retrieval.repeats import distinct

FILTERED = "filtered"
"""Fewer items than k pass the filters."""
EXHAUSTED = "exhausted"
"""Enough items pass, and the user has seen the rest."""
CANDIDATES = "candidates"
"""Of a pipeline: its sources name fewer items than k."""
RULES = "rules"
"""Of a pipeline: the sources name enough, and the rules leave items out."""
RELEVANCE = "relevance"
"""Of a model that knows where relevance ends: the list ends there, whatever else left items out."""


def reasons_of(
    lengths: NDArray[np.int64],
    k: int,
    num_items: int,
    passing: Passing | None,
    seen: Jagged | None,
    named: NDArray[np.int64] | None,
) -> NDArray[np.str_]:
    """Return the reason of each of B lists, (B,); "" of those that are not short.

    It is the first thing that leaves fewer than k: filters, what was seen, candidates, rules.

    Args:
        lengths: (B,) of the lists.
        k: what they were asked to be.
        num_items: of the catalogue.
        passing: what passes the filters; None: everything.
        seen: B rows of item rows that lists leave out; None: nothing.
        named: (B,) candidates that the lists are made of; None: the whole catalogue.
    """
    wanted = min(k, num_items)
    pass_ = np.full(len(lengths), num_items) if passing is None else passing.counts()
    why = np.where(pass_ < wanted, FILTERED, EXHAUSTED)
    if named is not None and (lengths < k).any():
        left = _left(len(lengths), num_items, passing, seen)
        of_pipeline = (left >= wanted) & (lengths < left)
        why = np.where(of_pipeline, np.where(named < wanted, CANDIDATES, RULES), why)
    return np.where(lengths < k, why, "")


def _left(
    count: int, num_items: int, passing: Passing | None, seen: Jagged | None
) -> NDArray[np.int64]:
    """Return how many items pass and were not seen, (B,)."""
    if passing is not None:
        return passing.hiding(seen).left()
    if seen is None:
        return np.full(count, num_items)
    return num_items - distinct(seen).lengths().numpy()
