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


def log_inclusion_of_draws(
    train_counts: NDArray[np.int64],
    drawable: NDArray[np.int64],
    log_missed: NDArray[np.float64] | None,
    *,
    uniform_negatives: int,
    frequent_negatives: int,
) -> NDArray[np.float32]:
    """Return log of the probability that each item is a candidate of a batch, (n_items,).

    A batch's candidates are the distinct items among `uniform_negatives` draws from the D items
    `drawable`, `frequent_negatives` rows drawn from the training log (item j with probability f_j)
    and, where `log_missed` is given, the batch's targets (none of them is j with probability m_j):
        q_j = 1 - m_j * (1 - f_j) ^ frequent_negatives * (1 - 1 / D) ^ uniform_negatives
    An item that none can draw gets the probability of a single row, so the log is finite.
    """
    share = train_counts / max(int(train_counts.sum()), 1)
    missed = frequent_negatives * np.log1p(-np.minimum(share, 1 - 1e-12))
    missed[drawable] += uniform_negatives * np.log1p(-1 / max(len(drawable), 2))
    if log_missed is not None:
        missed = missed + log_missed
    floor = 1 / max(int(train_counts.sum()), 1)
    return np.log(np.maximum(-np.expm1(missed), floor)).astype(np.float32)


def log_missed_targets(
    window: NDArray[np.int64],
    item_row: NDArray[np.int64],
    asked: NDArray[np.float64],
    *,
    num_items: int,
    num_windows: int,
    batch_size: int,
    one_a_window: bool,
) -> NDArray[np.float64]:
    """Return log of the probability that no target of a batch is item j, (num_items,).

    A batch is B = `batch_size` of the W = `num_windows` windows, drawn without replacement. The
    windows that may ask for item j, with probabilities p_1, p_2, ..., all miss it with probability
        m_j = prod_i (1 - p_i * B / (W - p_1 - ... - p_(i-1)))
    which is exact where every p is 1 (hypergeometric) and where one window alone has the item.

    Args:
        window: (N,) window of each step that may ask.
        item_row: (N,) the item that it would ask for.
        asked: (N,) probability that it asks if its window is drawn.
        num_items: size of the catalogue.
        num_windows: windows of an epoch.
        batch_size: windows of a batch.
        one_a_window: whether one step of a window asks; else each asks by its own chance.
    """
    order = np.lexsort((window, item_row))
    window, item_row, asked = window[order], item_row[order], asked[order]
    new = np.ones(len(order), bool)
    new[1:] = (window[1:] != window[:-1]) | (item_row[1:] != item_row[:-1])
    starts = np.flatnonzero(new)
    if one_a_window:
        chance = np.add.reduceat(asked, starts)
    else:
        chance = 1 - np.multiply.reduceat(1 - asked, starts)
    items = item_row[starts]
    before = np.cumsum(chance) - chance
    before -= before[np.searchsorted(items, items)]  # those of the same item alone
    drawn = np.minimum(batch_size / np.maximum(num_windows - before, 1), 1)
    missed = np.log1p(-np.minimum(chance * drawn, 1 - 1e-12))
    return np.bincount(items, missed, minlength=num_items).astype(np.float64, copy=False)
