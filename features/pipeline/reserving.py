"""Places of a list that are kept for what one source names: for items that are to be tried.

Shape letters: B requests, W candidates, T items that the source names, N places.
"""

from dataclasses import replace

import numpy as np

from recsys.features.pipeline.ranked import Mask, Ranked, Rows


def reserved(ranked: Ranked, named: Rows, most: int, k: int) -> Ranked:
    """Return the candidates in an order in which lists hold `most` items of a source, or more.

    A list that holds fewer gets the best others that the source names at its end, where the last
    items of the others were; pins stay. So many items as the source has, and as there are places.

    Args:
        ranked: candidates (B, W), best first.
        named: (B, T) what the source names, best first, -1 where it names fewer; they may be
            answered with.
        most: N.
        k: length of the lists.
    """
    count, width = ranked.rows.shape
    shown = min(k, width)
    free = k - ((ranked.places >= 0) & (ranked.places < k)).sum(1)
    top = ranked.rows[:, :shown]
    in_list = (np.arange(shown) < free[:, None]) & (top >= 0)
    is_its, is_there = _matches(top, in_list, ranked.pins, named)
    absent = (named >= 0) & ~is_there
    wanted = np.clip(most - is_there.sum(1), 0, absent.sum(1))
    filled, movable = in_list.sum(1), in_list & ~is_its
    pushed_out = np.clip(filled + wanted - free, 0, movable.sum(1))
    wanted = np.minimum(wanted, free - filled + pushed_out)

    behind = np.cumsum(movable[:, ::-1], 1)[:, ::-1]  # movable ones from here on
    dropped = movable & (behind <= pushed_out[:, None])
    is_new = absent & (np.cumsum(absent, 1) <= wanted[:, None])
    request, place = np.nonzero(is_new)
    number = (np.cumsum(is_new, 1) - 1)[request, place]
    new = np.full((count, most), -1)
    new[request, number] = named[request, place]

    # First what stays of the list, then what is new, then all others as they were.
    first = np.zeros((count, width), bool)
    first[:, :shown] = in_list & ~dropped
    rows = np.where(~first & _is_among(ranked.rows, new), -1, ranked.rows)
    group = np.hstack([np.where(first, 0, 2), np.where(new >= 0, 1, 3)])
    both = np.hstack([rows, new])
    group[both < 0] = 3
    order = np.argsort(group, axis=1, kind="stable")
    scores = np.hstack([ranked.scores, _scores_at_end(ranked, filled, pushed_out, most)])
    scores[both < 0] = -np.inf
    return replace(
        ranked,
        rows=np.take_along_axis(both, order, 1),
        scores=np.take_along_axis(scores, order, 1).astype(np.float32),
    )


def _matches(top: Rows, in_list: Mask, pins: Rows, named: Rows) -> tuple[Mask, Mask]:
    """Return which of the list the source names, as `top`; and which of those named it holds."""
    is_its, is_there = np.zeros(top.shape, bool), np.zeros(named.shape, bool)
    for place, item in enumerate(named.T):
        same = in_list & (top == item[:, None])
        is_its |= same
        is_there[:, place] = (same.any(1) | (pins == item[:, None]).any(1)) & (item >= 0)
    return is_its, is_there


def _is_among(rows: Rows, new: Rows) -> Mask:
    found = np.zeros(rows.shape, bool)
    for item in new.T:
        found |= (rows == item[:, None]) & (rows >= 0)
    return found


def _scores_at_end(ranked: Ranked, filled: Rows, pushed_out: Rows, most: int) -> Rows:
    """Return the scores of the places that new items get, (B, N); 0 in an empty list."""
    place = (filled - pushed_out)[:, None] + np.arange(most)
    last = np.maximum(filled - 1, 0)[:, None]
    own = np.take_along_axis(ranked.scores, np.minimum(place, last), 1)
    return np.where(filled[:, None] > 0, own, 0)
