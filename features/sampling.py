"""How often sampling puts each item into a batch's candidates."""

import numpy as np
from numpy.typing import NDArray


def log_inclusion(
    train_counts: NDArray[np.int64], *, batch_size: int, uniform_negatives: int
) -> NDArray[np.float32]:
    """Return log of the probability that each item is a candidate of a batch, (n_items,).

    A batch's candidates are the distinct items among `batch_size` rows drawn from the training
    log (item j with probability f_j, its share of the rows) and `uniform_negatives` draws from
    the n items of the catalogue:
        q_j = 1 - (1 - f_j) ^ batch_size * (1 - 1 / n) ^ uniform_negatives
    An item that neither can draw gets the probability of a single row, so the log is finite.
    """
    share = train_counts / max(int(train_counts.sum()), 1)
    missed = batch_size * np.log1p(-np.minimum(share, 1 - 1e-12))
    if uniform_negatives:
        missed = missed + uniform_negatives * np.log1p(-1 / max(len(share), 2))
    floor = 1 / max(int(train_counts.sum()), 1)
    return np.log(np.maximum(-np.expm1(missed), floor)).astype(np.float32)
