"""The search where items gain or lose something, beside scoring everything."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.batch import Jagged
from recsys.retrieval.gains import joined, search_with_gains
from recsys.retrieval.index.exact import ExactVectors

ITEMS, QUERIES = 23, 5


def gains_from(rng: np.random.Generator, lengths: tuple[int, ...], scale: float) -> Jagged:
    """Draw distinct items for each query, with gains of either sign."""
    rows = [np.sort(rng.choice(ITEMS, size, replace=False)) for size in lengths]
    drawn = Jagged.of_lengths(np.concatenate(rows), np.array(lengths))
    weights = torch.from_numpy(rng.normal(0, scale, len(drawn.values)).astype(np.float32))
    return Jagged(drawn.values, drawn.offsets, weights)


SIGNS = ("gain", "either", "never shown")


@given(
    st.integers(0, 2**31),
    st.booleans(),
    st.integers(1, 30),
    st.integers(1, 2),
    st.sampled_from(SIGNS),
)
def test_the_search_finds_what_scoring_everything_finds(
    seed: int, hide: bool, k: int, interests: int, signs: str
) -> None:
    rng = np.random.default_rng(seed)
    items = torch.from_numpy(rng.normal(0, 1, (ITEMS, 4)).astype(np.float32))
    queries = torch.from_numpy(rng.normal(0, 1, (QUERIES, interests, 4)).astype(np.float32))
    gains = gains_from(rng, (0, 1, 3, 9, ITEMS), scale=3)
    assert gains.weights is not None
    weights = gains.weights.abs() if signs == "gain" else gains.weights
    if signs == "never shown":
        weights = weights.masked_fill(weights < 0, -torch.inf)
    gains = Jagged(gains.values, gains.offsets, weights)
    hidden = Jagged.of_lengths(np.array([1, 2, 2, 7, 3, *range(20)]), np.array([1, 2, 0, 2, 20]))
    asked = queries[:, 0] if interests == 1 else queries
    scores, found = search_with_gains(
        ExactVectors(items), items, asked, gains, k, hidden if hide else None
    )
    wanted = (queries @ items.T).amax(1)
    wanted[gains.owners(), gains.values] += weights
    if hide:
        wanted[hidden.owners(), hidden.values] = -torch.inf
    for query in range(QUERIES):
        best = wanted[query].sort(descending=True).values[:k]
        best = best[best > -torch.inf]
        there = found[query] >= 0
        assert int(there.sum()) == len(best)
        torch.testing.assert_close(scores[query][there], best)
        torch.testing.assert_close(wanted[query][found[query][there]], best)
        assert len(set(found[query][there].tolist())) == len(best)


def test_gains_of_the_same_queries_add_up() -> None:
    rng = np.random.default_rng(0)
    parts = [gains_from(rng, lengths, scale=1) for lengths in ((3, 0, 9), (5, 2, 9))]
    dense = torch.zeros(3, ITEMS)
    for one in parts:
        assert one.weights is not None
        dense[one.owners(), one.values] += one.weights
    both = joined(*parts)
    assert both.weights is not None
    found = torch.zeros(3, ITEMS)
    found[both.owners(), both.values] = both.weights
    torch.testing.assert_close(found, dense)
    pairs = list(zip(both.owners().tolist(), both.values.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
