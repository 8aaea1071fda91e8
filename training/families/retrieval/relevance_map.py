"""The map of scores to the chance of a hit, fitted on lists; see `recsys.bundle.relevance`.

A logistic regression on the places of all lists, by Newton's method: at its end the expected and
the actual number of hits agree. What is read of a query is the same for all of its places, so that
a step costs a few sums over the places.
"""

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.relevance import Relevance
from recsys.training.evaluation.cut_lists import Floats, ScoredLists

_STEPS, _CLOSE, _RIDGE = 50, 1e-9, 1e-3


def fit_map(lists: ScoredLists, *, by_query: bool) -> Relevance:
    """Return the map of least log loss on the places of `lists`; its threshold keeps everything.

    by_query: whether it reads the query, or the score alone. `sharpness` and `anchors` are those of
    `lists.crowds`, and not known here.
    """
    there = lists.there
    scores = np.where(there, lists.scores, 0).astype(np.float64)
    middle, scale = scores[there].mean(), max(float(scores[there].std()), 1e-12)
    unit = (scores - middle) / scale
    columns = np.column_stack([lists.crowds, np.log1p(lists.num_steps.astype(np.float64))])
    if not by_query:
        columns = columns[:, :0]
    means, scales = columns.mean(0), np.maximum(columns.std(0), 1e-12)
    queries = (columns - means) / scales
    slope, found = _newton(unit, lists.hit, there, queries)
    if slope < 0:
        # A model that ranks worse than chance: the order of items is never turned round.
        slope, found = 0.0, _newton(unit * 0, lists.hit, there, queries)[1]
    weights, slope = found[1:] / scales, slope / scale
    return Relevance(
        slope=slope,
        intercept=float(found[0] - slope * middle - weights @ means),
        threshold=float("-inf"),
        crowd=float(weights[0]) if by_query else 0.0,
        activity=float(weights[1]) if by_query else 0.0,
        k=lists.scores.shape[1],
    )


def _newton(
    unit: Floats, hit: NDArray[np.bool_], there: NDArray[np.bool_], queries: Floats
) -> tuple[float, Floats]:
    """Return the slope of scores (Q, K), and intercept and weights of queries (Q, F): (1 + F,)."""
    from scipy.special import expit

    rows = np.column_stack([np.ones(len(queries)), queries])
    rate = float(np.clip(hit[there].mean(), 1e-9, 1 - 1e-9))
    found = np.zeros(1 + rows.shape[1])
    found[1] = np.log(rate / (1 - rate))
    for _ in range(_STEPS):
        chance = expit(found[0] * unit + (rows @ found[1:])[:, None])
        error = np.where(there, chance - hit, 0.0)
        weight = np.where(there, chance * (1 - chance), 0.0)
        gradient = np.r_[(error * unit).sum(), rows.T @ error.sum(1)]
        # Columns that are the same everywhere have no slope, and no second derivative either.
        hessian = np.eye(len(found)) * _RIDGE
        hessian[0, 0] += (weight * unit**2).sum()
        hessian[0, 1:] += (weight * unit).sum(1) @ rows
        hessian[1:, 0] = hessian[0, 1:]
        hessian[1:, 1:] += (rows * weight.sum(1)[:, None]).T @ rows
        step = np.linalg.solve(hessian, gradient)
        # A first step over a far way is shortened, so that chances do not run to 0 or 1.
        found -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < _CLOSE:
            break
    return float(found[0]), found[1:]
