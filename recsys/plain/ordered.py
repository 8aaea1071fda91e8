"""How baselines of sequences order items with equal scores."""

import numpy as np
from numpy.typing import NDArray

from recsys.plain.interactions import Ones

TIE = np.float32(1e-6)
"""Weight of popularity where it only orders items with equal scores."""


def popularity_share(user_matrix: Ones) -> NDArray[np.float32]:
    """Return the sum of each column of `user_matrix`, over the largest of them, (n_items,)."""
    counts = np.bincount(
        user_matrix.indices, user_matrix.data, minlength=user_matrix.shape[1]
    ).astype(np.float32)
    return counts / max(1.0, float(counts.max(initial=0)))
