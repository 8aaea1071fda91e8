"""The shape of a log in a few numbers that a page can draw: over time, and from long to short."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from recsys.features.schema import Schema
from recsys.features.tables.checked import Events

MOST_BINS = 60
_POINTS = 40


@dataclass(frozen=True)
class Timeline:
    """Rows of the parts in stretches of equal length, (bins,) each.

    starts: ISO times, or order values. rows: by part.
    """

    starts: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Tail:
    """Rows by rank: `rows[i]` has the user or item that is the `ranks[i]`-th by its rows."""

    ranks: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Lengths:
    """How long sequences are: `counts[i]` of them have `edges[i]` to `edges[i + 1] - 1` rows."""

    what: str
    edges: tuple[int, ...]
    counts: tuple[int, ...]
    median: float


@dataclass(frozen=True)
class Shape:
    """What a page draws; timeline: None where the log has no time."""

    timeline: Timeline | None
    items: Tail
    users: Tail
    lengths: Lengths


def shape(
    schema: Schema,
    events: Events,
    parts: NDArray[np.int8],
    *,
    user_counts: NDArray[np.int64],
    item_counts: NDArray[np.int64],
    session_lengths: NDArray[np.int64] | None,
) -> Shape:
    """Return the shape of a log.

    Args:
        schema: roles and features.
        events: the log.
        parts: (E,) the part of each event.
        user_counts: (U,) rows of each user.
        item_counts: (V,) rows of each item.
        session_lengths: (S,) rows of each session; None where the log is not cut.
    """
    has_clock = schema.interactions.time is not None
    what = "users" if session_lengths is None else "sessions"
    lengths = user_counts[user_counts > 0] if session_lengths is None else session_lengths
    return Shape(
        _timeline(events, parts) if has_clock and len(events) else None,
        _tail(item_counts),
        _tail(user_counts),
        _lengths(what, lengths),
    )


def _timeline(events: Events, parts: NDArray[np.int8]) -> Timeline | None:
    first, last = int(events.time.min()), int(events.time.max())
    if first == last:
        return None
    width = -(-(last - first + 1) // MOST_BINS)
    at = (events.time - first) // width
    bins = int(at.max()) + 1
    rows = np.bincount(parts * np.int64(bins) + at, minlength=3 * bins).reshape(3, bins)
    starts = [datetime.fromtimestamp((first + k * width) / 1e6, UTC) for k in range(bins)]
    return Timeline(
        tuple(one.isoformat(timespec="seconds") for one in starts),
        tuple(tuple(part) for part in rows.tolist()),
    )


def _tail(counts: NDArray[np.int64]) -> Tail:
    ordered = np.sort(counts[counts > 0])[::-1]
    if not len(ordered):
        return Tail((), ())
    ranks = np.geomspace(1, len(ordered), _POINTS).round().astype(np.int64)
    ranks = ranks[np.diff(ranks, prepend=0) > 0]
    return Tail(tuple(ranks.tolist()), tuple(ordered[ranks - 1].tolist()))


def _lengths(what: str, lengths: NDArray[np.int64]) -> Lengths:
    """Count lengths, one a bin up to 9, then in bins that double."""
    edges = [*range(1, 10)]
    longest = int(lengths.max(initial=1))
    while edges[-1] <= longest:
        edges.append(max(edges[-1] + 1, 10 if edges[-1] == 9 else 2 * edges[-1]))
    counts, _ = np.histogram(lengths, bins=np.array(edges, np.float64) - 0.5)
    median = float(np.median(lengths)) if len(lengths) else 0.0
    return Lengths(what, tuple(edges), tuple(counts.tolist()), median)
