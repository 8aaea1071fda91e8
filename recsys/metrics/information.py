"""How much information categorical columns have about each other.

Shape letters: N rows, F columns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct_codes, distinct_counts


def mutual_information(columns: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the mutual information of every two columns in nats, (F, F), symmetric.

    From the shares p of the rows:  sum_ab p(a, b) log(p(a, b) / (p(a) p(b))), on the diagonal
    the entropy. A sample of N rows overstates it by about
    (values of a - 1) (values of b - 1) / (2 N) where both have few values (Miller 1955), and an
    id that occurs in one row alone "knows" all of any column: see `excess_information`.

    Args:
        columns: F arrays (N,) of any values that can be compared.

    Raises:
        ValueError: no rows, or columns of unlike lengths.
    """
    lengths = {len(column) for column in columns}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"columns of one length of at least 1, not of {sorted(lengths)}")
    codes, sizes, entropies = [], [], []
    for column in columns:
        values, code = distinct_codes(column)
        codes.append(code)
        sizes.append(len(values))
        entropies.append(_entropy(np.bincount(code)))
    found = np.diag(np.array(entropies, np.float64))
    for first in range(len(columns)):
        for second in range(first):
            joint = codes[first] * sizes[second] + codes[second]
            together = _entropy(_counts(joint, sizes[first] * sizes[second]))
            shared = max(0.0, entropies[first] + entropies[second] - together)
            found[first, second] = found[second, first] = shared
    return found


def excess_information(columns: Sequence[NDArray[Any]], *, seed: int = 0) -> NDArray[np.float64]:
    """Return the mutual information beyond what chance gives columns of such values, (F, F).

    The information that the same columns seem to have after each was shuffled by itself, which
    leaves none, is subtracted: the correction for chance of Vinh et al. (JMLR 11,
    2010), estimated by one shuffle. A column that is new in every row has no excess with any
    other, where mutual information, normalised or not, ranks it first; where values repeat,
    next to nothing is subtracted. May be slightly below 0. 0 on the diagonal.

    Args:
        columns: as `mutual_information`.
        seed: of the shuffle.
    """
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(column) for column in columns]
    return mutual_information(columns) - mutual_information(shuffled)


def _counts(codes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """How often each code below `size` occurs, in any order, zeros or not."""
    if size <= 4 * len(codes):
        return np.bincount(codes, minlength=size)
    return distinct_counts(codes)[1]


def _entropy(counts: NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
