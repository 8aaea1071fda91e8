"""Spark's workers read the pieces of a click log that is to be encoded."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import pyarrow as pa

from recsys.app.spark.session import need_spark, said_by_workers, session_of
from recsys.features.clicks.by_pieces import OfPieces
from recsys.features.clicks.pieces import COUNTS, NUMBER, Counting, count_pieces

NAME = "recsys prepare"
_TYPES = {pa.int64(): "long", pa.string(): "string", pa.list_(pa.binary()): "array<binary>"}
"""Arrow types in Spark's words."""


@dataclass(frozen=True)
class SparkWorkers:
    """Has each piece read in a task of its own; see `recsys.features.clicks.by_pieces.Workers`.

    master: where to run, as `local[4]`; None: as Spark is set up, or in the session that is there.
    """

    master: str | None = None

    def each(self, function: OfPieces, pieces: int, schema: pa.Schema) -> pa.Table:
        """Return what came of each piece."""
        with _asked():
            return self._mapped(function, pieces, schema).toArrow().cast(schema)

    def count(self, counting: Counting, pieces: int, least: Sequence[int]) -> pa.Table:
        """Return the values that enough rows hold, and what went wrong."""
        need_spark()
        from pyspark.sql import functions as sql

        with _asked():
            counts = self._mapped(partial(count_pieces, counting), pieces, COUNTS)
            sums = counts.groupBy("feature", "value", "error").agg(sql.sum("rows").alias("rows"))
            enough = (
                (sums["feature"] == place) & (sums["rows"] >= rows)
                for place, rows in enumerate(least)
            )
            wanted = reduce(lambda one, other: one | other, enough, sums["error"].isNotNull())
            return sums.where(wanted).select(*COUNTS.names).toArrow().cast(COUNTS)

    def _mapped(self, function: OfPieces, pieces: int, schema: pa.Schema) -> Any:
        """Return the data frame of what `function` makes of the numbers of the pieces."""

        def mapped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return function(batches)  # Spark asks for a function with a name

        spark = session_of(self.master, NAME)
        numbers = spark.range(0, pieces, 1, pieces)  # its column is NUMBER
        assert numbers.columns == [NUMBER]
        columns = ", ".join(f"{one.name} {_TYPES[one.type]}" for one in schema)
        return numbers.mapInArrow(mapped, columns)


@contextmanager
def _asked() -> Iterator[None]:
    """Say what workers raise as errors of ours, and nothing of versions that work."""
    need_spark()
    with warnings.catch_warnings(), said_by_workers():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support", FutureWarning)
        yield
