"""Shorter vectors of items and queries whose inner products stay nearly the same.

Tepper et al., "LeanVec: Searching vectors faster by making them fit", 2023,
https://arxiv.org/abs/2312.16335: two matrices A and B of D rows, learnt from items and queries,
so that a search among short items finds candidates that their whole vectors put in order:

    minimise  mean over queries q and items x of (<q, x> - <B q, A x>)^2

With the second moments K_q = E q q^T and K_x = E x x^T that is tr(R K_x R^T K_q), R = I - B^T A: no
more of queries and items is needed than two (E, E) matrices. Ways to a solution:

- `principal`: A = B, the first D principal directions of the items. Section 2.1, LeanVec-ID: the
  best where queries are distributed as items are;
- `shared`: A = B, those of a mixture of K_q and K_x; section 2.3, Algorithm 2;
- `frank_wolfe`: A and B of spectral norm at most 1, each in turn by a Frank-Wolfe step; section
  2.2, Algorithm 1;
- `sphered`: the best there is, in closed form. Tepper et al., "GleanVec", 2024,
  https://arxiv.org/abs/2410.22347, section 3: with W = K_q^(1/2) the loss is the squared error of
  W x, whose best approximation of D numbers are its principal directions P: A = P W, B = P W^+.

Products stay the same when A is replaced by M A and B by M^-T B. Of `sphered` A gets orthonormal
rows: short items are projections then, as far from each other as what is projected is, which an
index that goes by distances between items needs (with W in A, IVF opens twice the lists).

A vector that all items have in common moves no item in a query's list. `reduction_of` learns from
items less their mean, which leaves more of the D numbers for what tells items from each other. What
is written is A x all the same: the mean is in it, as it is in x, where an index that goes by
products looks for it.

Shape letters: N items, Q queries, E whole width, D reduced width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
_SAME = 1e-10
"""Of the largest eigenvalue: directions below it, queries have no part in."""
_TINY = 1e-30
_STEPS, _STILL = 500, 1e-4
"""Frank-Wolfe ends after so many steps, or when one changes the loss by less than this share."""


@dataclass(frozen=True)
class Pair:
    """The matrices of items and of queries, both (D, E) float64."""

    items: Floats
    queries: Floats


@dataclass(frozen=True)
class Reduction:
    """What makes short vectors: the matrices A and B, (D, E) float32."""

    items: Tensor
    queries: Tensor

    @property
    def dim(self) -> int:
        """D."""
        return len(self.items)

    def of_items(self, vectors: Tensor) -> Tensor:
        """Return the short vectors (..., D) of items (..., E)."""
        return vectors @ self.items.T

    def of_queries(self, vectors: Tensor) -> Tensor:
        """Return the short vectors (..., D) of queries (..., E)."""
        return vectors @ self.queries.T


def second_moment(vectors: Tensor) -> Floats:
    """Return the mean of x x^T, (E, E) float64, over vectors (N, E)."""
    wide = vectors.double().numpy()
    return np.asarray(wide.T @ wide / max(1, len(wide)))


def loss_of(pair: Pair, items_EE: Floats, queries_EE: Floats) -> float:
    """Return the mean squared error of the inner products, from the second moments."""
    left = np.eye(len(items_EE)) - pair.queries.T @ pair.items
    return float(np.trace(left @ items_EE @ left.T @ queries_EE))


def principal(items_EE: Floats, queries_EE: Floats, dim: int) -> Pair:
    """Return the first principal directions of the items, for both sides."""
    top = _top(items_EE, dim)
    return Pair(top, top)


def sphered(items_EE: Floats, queries_EE: Floats, dim: int) -> Pair:
    """Return matrices of the least loss of all of D rows."""
    values, vectors = np.linalg.eigh(queries_EE)
    there = values > _SAME * values[-1]
    root = np.sqrt(np.where(there, values, 0.0))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=there)
    whiten, undo = (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T
    top = _top(whiten @ items_EE @ whiten, dim)
    of_items, of_queries = top @ whiten, top @ undo
    rows, mixing = np.linalg.qr(of_items.T)  # A = mixing^T rows^T
    return Pair(rows.T, mixing @ of_queries)


def shared(items_EE: Floats, queries_EE: Floats, dim: int) -> Pair:
    """Return the directions of the mixture of both moments that has the least loss.

    The paper looks for the mixture by Brent's method; the loss jumps where directions change
    places, so here 65 mixtures are tried, that of the items alone among them.
    """
    of_items, of_queries = (one / np.trace(one) for one in (items_EE, queries_EE))

    def mixed(share: float) -> Pair:
        top = _top(share * of_queries + (1 - share) * of_items, dim)
        return Pair(top, top)

    tried = [mixed(float(share)) for share in np.linspace(0, 1, 65)]
    return min(tried, key=lambda pair: loss_of(pair, items_EE, queries_EE))


def frank_wolfe(items_EE: Floats, queries_EE: Floats, dim: int) -> Pair:
    """Return what Frank-Wolfe steps over the ball of the spectral norm find, A and B in turn.

    A step goes 1 / (t + 1)^0.999 of the way to the matrix with orthonormal rows that lies furthest
    down the gradient. They start from `principal`; the paper starts where the gradient is zero.
    """
    pair = best = principal(items_EE, queries_EE, dim)
    least = before = loss_of(pair, items_EE, queries_EE)
    for step in range(1, _STEPS + 1):
        length = (step + 1) ** -0.999
        # Half the gradient of the loss by A, then, at the new A, by B.
        left = pair.queries.T @ pair.items - np.eye(len(items_EE))
        of_items = pair.queries @ queries_EE @ left @ items_EE
        pair = Pair((1 - length) * pair.items + length * _furthest(of_items), pair.queries)
        left = pair.queries.T @ pair.items - np.eye(len(items_EE))
        of_queries = pair.items @ items_EE @ left.T @ queries_EE
        pair = Pair(pair.items, (1 - length) * pair.queries + length * _furthest(of_queries))
        now = loss_of(pair, items_EE, queries_EE)
        if now < least:
            least, best = now, pair
        if abs(now - before) < _STILL * before:
            break
        before = now
    return best


Solver = Callable[[Floats, Floats, int], Pair]
"""From second moments of items and queries, and D, to matrices."""
SOLVERS: dict[str, Solver] = {"pca": principal, "leanvec": sphered}
"""What an export may be reduced by. `shared` and `frank_wolfe` find no more than `sphered`
does (tests/benchmarks/short_vectors.py)."""


def reduction_of(
    solve: Solver, items: Tensor, queries: Tensor, dim: int, *, centred: bool = True
) -> Reduction:
    """Learn a reduction from items (N, E) and queries (Q, E).

    The items themselves count as one query of the queries' mean length: of fewer than E queries,
    some directions of items would else be nobody's.

    Args:
        solve: one of this file.
        items: of the catalogue.
        queries: like those that will be asked, one or more.
        dim: D, from 1 to E.
        centred: learn from items less their mean.

    Raises:
        ValueError: `dim` outside 1..E.
    """
    if not 1 <= dim <= items.shape[1]:
        raise ValueError(f"a reduced width is from 1 to {items.shape[1]}, got {dim}")
    mean = items.mean(0) if centred else torch.zeros(items.shape[1])
    of_items, of_queries = second_moment(items - mean), second_moment(queries)
    like_items = of_items * (np.trace(of_queries) / max(np.trace(of_items), _TINY))
    of_queries = (len(queries) * of_queries + like_items) / (len(queries) + 1)
    pair = solve(of_items, of_queries, dim)
    return Reduction(_tensor(pair.items), _tensor(pair.queries))


def _tensor(matrix: Floats) -> Tensor:
    return torch.from_numpy(matrix.copy()).float()


def _top(moment_EE: Floats, dim: int) -> Floats:
    """Return the eigenvectors (D, E) of the largest eigenvalues, largest first."""
    vectors: Floats = np.linalg.eigh(moment_EE)[1][:, ::-1]
    return vectors[:, :dim].T


def _furthest(gradient_DE: Floats) -> Floats:
    """Return the matrix of spectral norm 1 with the least inner product with the gradient."""
    left, _, right = np.linalg.svd(-gradient_DE, full_matrices=False)
    return np.asarray(left @ right)
