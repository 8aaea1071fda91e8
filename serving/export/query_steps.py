"""The history of raw requests inside a graph: which steps a model sees, and the times between.

As `recsys.features.requests.table.encode_requests` has it: items that the catalogue lacks are left
out, a pause of a session cuts off what was before it, and the last `history_length` steps stay.

Shape letters: B requests, L longest history, M most steps that the model sees.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.errors import ConfigError
from recsys.features.encoding.hashing import hash_values
from recsys.features.requests.steps import TIMES
from recsys.features.requests.table import HISTORY
from recsys.features.tables.ledger import is_text
from recsys.serving.export.graph_symbols import BOOL, DOUBLE, FLOAT, INT64, Symbol
from recsys.serving.export.query_columns import Inputs, hashes, microseconds, places_in

_MINUTE, _SECOND = 60e6, 1e6  # microseconds


@dataclass(frozen=True)
class Clock:
    """How times of steps are read. unit: of the column; pause_minutes: what ends a session."""

    unit: str
    pause_minutes: float | None


@dataclass(frozen=True)
class SeenSteps:
    """The steps that a model sees, oldest first.

    Attributes:
        rows: (B, M) int64 of the catalogue, 0 behind the end of a history.
        length: (B,) int64, how many of the M are there.
        order: (B * M,) int64, their places among all B * L steps, that of some step behind the end.
        gap: (B, M) float32 seconds since the step before, NaN where not known; None without times.
    """

    rows: Symbol
    length: Symbol
    order: Symbol
    gap: Symbol | None


def seen_steps(
    inputs: Inputs, item_ids: pa.Array, history_length: int, clock: Clock | None
) -> SeenSteps:
    """Return the steps of the input `history` that a model sees.

    Args:
        inputs: of the graph.
        item_ids: (n,) of the catalogue.
        history_length: how many the model reads.
        clock: None: no times are read.
    """
    graph = inputs.graph
    row = _catalogue_rows(inputs, item_ids)
    known = row >= 0
    times = None
    if clock is not None:
        times = _times(inputs, clock.unit)
        if clock.pause_minutes is not None:
            known = known & _after_the_last_pause(*times, clock.pause_minutes, _there(inputs))
    rank = graph.op("CumSum", known.cast(INT64), graph.constant(np.array(1)), kind=INT64)
    total = rank.at(graph.constant(np.array(-1)), axis=1)
    length = graph.op("Min", total, graph.whole([history_length]), kind=INT64)
    most = graph.where(length.largest() < 1, 1, length.largest())
    target = rank - 1 - (total - length).widened(1)
    # Steps that are not seen go to a column of their own, which is cut off again.
    target = graph.where(known & (target >= 0), target, most)
    place = graph.counted(row.size(1)).widened(0)
    batch = row.size(0)
    empty = graph.op(
        "Expand",
        graph.whole([0]),
        graph.joined([batch, (most + 1).shaped(1)], 0),
        kind=INT64,
    )
    every = graph.op("Expand", place, graph.op("Shape", row, kind=INT64), kind=INT64)
    order = graph.op("ScatterElements", empty, target, every, kind=INT64, axis=1)
    order = graph.op("Slice", order, graph.whole([0]), most.shaped(1), graph.whole([1]), kind=INT64)
    there = graph.counted(most).widened(0) < length.widened(1)
    chosen = graph.where(there, _picked(row, order), 0)
    first = graph.counted(batch).widened(1) * row.size(1)
    gap = None if times is None else _gaps(*times, order)
    return SeenSteps(chosen, length, (order + first).shaped(-1), gap)


def _there(inputs: Inputs) -> Symbol:
    """Return which places of the input `history` hold a step, (B, L)."""
    values, _, length = inputs.read(HISTORY)
    assert length is not None
    longest = values.size(1)
    length = inputs.graph.where(length < 0, longest, length).widened(1)
    return inputs.graph.counted(longest).widened(0) < length


def _catalogue_rows(inputs: Inputs, item_ids: pa.Array) -> Symbol:
    """Return the row of each item of the histories, (B, L) int64, -1 where it has none."""
    graph, family = inputs.graph, "string" if is_text(item_ids.type) else "integer"
    values, null, _ = inputs.given(HISTORY, family, lists=True)
    assert null is not None
    known, row_of = _by_hash(item_ids)
    place = places_in(hashes(values), known)
    row = graph.constant(np.append(row_of, -1)).at(place)
    return graph.where(_there(inputs) & ~null, row, -1)


def _by_hash(item_ids: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the hashes of ids sorted as unsigned numbers, and the row of each.

    Raises:
        ConfigError: two ids share one.
    """
    hashed = hash_values(item_ids)
    if len(distinct(hashed)) != len(hashed):
        raise ConfigError(
            "two items of the catalogue have one 64-bit hash, by which a graph knows them: rename "
            "one of them; the engine itself compares ids"
        )
    order = np.argsort(hashed.view(np.uint64), kind="stable")
    return hashed[order], order


def _times(inputs: Inputs, unit: str) -> tuple[Symbol, Symbol]:
    """Return microseconds, (B, L) int64, and where they are known."""
    values, null, _ = inputs.given(TIMES, "instant", steps=True, unit=unit)
    assert null is not None
    shape = inputs.graph.op("Shape", values, kind=INT64)
    known = ~inputs.graph.op("Expand", null, shape, kind=BOOL)
    return microseconds(inputs.graph.where(known, values, 0), unit), known


def _after_the_last_pause(times: Symbol, known: Symbol, minutes: float, there: Symbol) -> Symbol:
    """Return which steps come after the last pause of their history, (B, L)."""
    graph = times.graph
    known = known & there
    passed = _but_first(times) - _but_last(times)
    pause = _but_first(known) & _but_last(known) & (passed.cast(DOUBLE) > minutes * _MINUTE)
    place = graph.counted(times.size(1)).widened(0)
    begins = graph.where(pause, _but_first(place), 0)
    # A history of one step has no pause.
    shape = graph.joined([times.size(0), graph.whole([1])], 0)
    none = graph.op("Expand", graph.whole([0]), shape, kind=INT64)
    last = graph.joined([none, begins], 1).largest(1)
    return place >= last.widened(1)


def _gaps(times: Symbol, known: Symbol, order: Symbol) -> Symbol:
    """Return seconds since the step before, (B, M) float32: 0 at the first, NaN where not known."""
    graph = times.graph
    times, known = _picked(times, order), _picked(known.cast(INT64), order)
    before = graph.joined([_first(times), _but_last(times)], 1)
    both = known * graph.joined([_first(known), _but_last(known)], 1)
    gap = ((times - before).cast(DOUBLE) / _SECOND).cast(FLOAT)
    return graph.where(both > 0, gap, np.nan)


def _picked(values: Symbol, order: Symbol) -> Symbol:
    return values.graph.op("GatherElements", values, order, kind=values.kind, axis=1)


def _first(values: Symbol) -> Symbol:
    return _sliced(values, 0, 1)


def _but_first(values: Symbol) -> Symbol:
    return _sliced(values, 1, np.iinfo(np.int64).max)


def _but_last(values: Symbol) -> Symbol:
    return _sliced(values, 0, -1)


def _sliced(values: Symbol, start: int, stop: int) -> Symbol:
    ends = (values.graph.whole([end]) for end in (start, stop, 1))
    return values.graph.op("Slice", values, *ends, kind=values.kind)
