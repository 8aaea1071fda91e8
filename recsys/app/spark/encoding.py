"""Spark's workers read the pieces of a click log that is to be encoded."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa

from recsys.app.spark.session import need_spark, said_by_workers, session_of
from recsys.features.clicks.pieces import (
    COUNTS,
    NUMBER,
    OUTCOMES,
    Counting,
    Encoding,
    count_pieces,
    encode_pieces,
)

NAME = "recsys prepare"
_OUTCOMES = "piece long, error string, outcome string"
_COUNTS = "feature long, value long, rows long, error string"
"""`OUTCOMES` and `COUNTS` in Spark's words."""


@dataclass(frozen=True)
class SparkWorkers:
    """Has each piece read in a task of its own; see `recsys.features.clicks.by_pieces.Workers`.

    master: where to run, as `local[4]`; None: as Spark is set up, or in the session that is there.
    """

    master: str | None = None

    def encode(self, encoding: Encoding, pieces: int) -> pa.Table:
        """Return what came of each piece."""

        def encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return encode_pieces(encoding, batches)

        with _asked():
            return self._mapped(encode, _OUTCOMES, pieces).toArrow().cast(OUTCOMES)

    def count(self, counting: Counting, pieces: int, least: Sequence[int]) -> pa.Table:
        """Return the values that enough rows hold, and what went wrong."""
        need_spark()
        from pyspark.sql import functions as sql

        def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return count_pieces(counting, batches)

        with _asked():
            counts = self._mapped(count, _COUNTS, pieces)
            sums = counts.groupBy("feature", "value", "error").agg(sql.sum("rows").alias("rows"))
            enough = (
                (sums["feature"] == place) & (sums["rows"] >= rows)
                for place, rows in enumerate(least)
            )
            wanted = reduce(lambda one, other: one | other, enough, sums["error"].isNotNull())
            return sums.where(wanted).select(*COUNTS.names).toArrow().cast(COUNTS)

    def _mapped(
        self, function: Callable[[Iterator[pa.RecordBatch]], Any], schema: str, pieces: int
    ) -> Any:
        """Return the data frame of what `function` makes of the numbers of the pieces."""
        spark = session_of(self.master, NAME)
        numbers = spark.range(0, pieces, 1, pieces)  # its column is NUMBER
        assert numbers.columns == [NUMBER]
        return numbers.mapInArrow(function, schema)


@contextmanager
def _asked() -> Iterator[None]:
    """Say what workers raise as errors of ours, and nothing of versions that work."""
    need_spark()
    with warnings.catch_warnings(), said_by_workers():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support", FutureWarning)
        yield
