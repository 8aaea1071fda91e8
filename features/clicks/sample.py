"""A sample of the rows of a log that streams by."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.features.tables.ledger import Mask

ALL = int(np.iinfo(np.uint64).max)
"""The highest priority."""
_OWN = ("priority", "position", "time")
_ROOM = 1.25  # so many times more are kept for a moment


@dataclass(frozen=True, eq=False)
class SampledRows:
    """Sampled rows: priority (N,) uint64, position (N,) int64 in the log, time, columns."""

    priority: NDArray[np.uint64]
    position: NDArray[np.int64]
    time: NDArray[np.int64] | None
    columns: Mapping[str, pa.Array]

    def to_bytes(self) -> bytes:
        """Return the rows as an Arrow stream, for `of_bytes`."""
        time = pa.nulls(len(self.position), pa.int64()) if self.time is None else self.time
        arrays = [pa.array(self.priority), pa.array(self.position), pa.array(time)]
        names = [
            *_OWN,
            *self.columns,
        ]  # names of columns may be any: these three are known by place
        batch = pa.RecordBatch.from_arrays([*arrays, *self.columns.values()], names=names)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        return sink.getvalue().to_pybytes()

    @classmethod
    def of_bytes(cls, data: bytes, first: int) -> Self:
        """Return the rows of `to_bytes`; first: what their positions are counted from."""
        with pa.ipc.open_stream(data) as stream:
            batch = stream.read_next_batch()
        priority, position, time = (batch.column(place) for place in range(len(_OWN)))
        columns = zip(batch.schema.names[len(_OWN) :], batch.columns[len(_OWN) :], strict=True)
        return cls(
            np.asarray(priority),
            np.asarray(position) + first,
            None if time.null_count == len(time) > 0 else np.asarray(time),
            dict(columns),
        )

    def filter(self, mask: Mask) -> "SampledRows":
        """Return the rows where `mask` (N,) holds."""
        if mask.all():
            return self
        chosen = pa.array(mask)
        return SampledRows(
            self.priority[mask],
            self.position[mask],
            None if self.time is None else self.time[mask],
            {name: values.filter(chosen) for name, values in self.columns.items()},
        )


class RowSample:
    """Rows of lowest priority, a hash of the row number, in reading order.

    So the sample is uniform over the log, the same in every run, and all of a log of no more
    than `size` rows; what `keep_before` leaves of a larger one is at most `size`.
    """

    def __init__(self, size: int, bound: int = ALL) -> None:
        """Begin without a row; bound: the highest priority of rows that are kept at all."""
        self._size = size
        self._bound = np.uint64(bound)
        self.pieces: list[SampledRows] = []

    def __len__(self) -> int:
        return sum(len(piece.position) for piece in self.pieces)

    def add(self, piece: SampledRows) -> None:
        """Offer rows; only those that may end up in the sample are kept."""
        self.pieces.append(_plain(piece.filter(piece.priority <= self._bound)))
        if len(self) > self._size * _ROOM:
            self._shrink()

    def keep_before(self, position: int) -> None:
        """Drop what is over the size, then rows from `position` in the log on.

        So which rows are left depends on no batch that they came in.
        """
        if len(self) > self._size:
            self._shrink()
        self.pieces = [piece.filter(piece.position < position) for piece in self.pieces]

    def _shrink(self) -> None:
        every = np.concatenate([piece.priority for piece in self.pieces])
        self._bound = np.partition(every, self._size - 1)[self._size - 1]
        self.pieces = [piece.filter(piece.priority <= self._bound) for piece in self.pieces]


def _plain(piece: SampledRows) -> SampledRows:
    """A few rows of a batch need not keep the dictionaries of all of it."""
    return replace(
        piece,
        columns={
            name: values.cast(values.type.value_type)
            if pa.types.is_dictionary(values.type)
            else values
            for name, values in piece.columns.items()
        },
    )
