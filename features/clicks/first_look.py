"""The first reading of a click log, or of a piece of it: rows counted and sampled."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.features.clicks.rows import ClickSource
from recsys.features.clicks.sample import ALL, RowSample, SampledRows
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.hashing import splitmix64
from recsys.features.kinds.convert import columns_of, decide_type
from recsys.features.kinds.feature import Feature
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.rows import RowReader, Rows


@dataclass(frozen=True)
class Asked:
    """What is looked at.

    watched: features whose columns are read. fitted: those of them that are sampled. untyped:
    columns whose type is still to be decided. size: rows of the sample.
    """

    watched: tuple[Feature, ...]
    fitted: tuple[Feature, ...]
    untyped: frozenset[str]
    size: int

    @classmethod
    def of(cls, source: ClickSource, schema: Schema, size: int) -> Self:
        """Return what the log is to be asked for `schema`."""
        features = schema.features_of("interactions")
        fitted = tuple(feature for feature in features if _is_fitted(schema, feature))
        untyped = _untyped(source, features)
        watched = tuple(f for f in features if f in fitted or f.source_column in untyped)
        return cls(watched, fitted, frozenset(untyped), size)


@dataclass(frozen=True)
class Look:
    """What was seen.

    reader, ledger: with what they found. counts (3,) int64: usable rows of each part; of the first
    one where no column says. texts: untyped columns that hold text. sample: of the training rows.
    """

    reader: RowReader
    ledger: Ledger
    counts: NDArray[np.int64]
    texts: frozenset[str]
    sample: RowSample


def look_at(
    source: ClickSource,
    asked: Asked,
    *,
    see: Callable[[Rows], None] = lambda rows: None,
    bound: int = ALL,
    finish: bool = True,
) -> Look:
    """Read the log.

    Args:
        source: the log, or a piece of it.
        asked: what is looked at.
        see: called with the usable rows of each batch, in order.
        bound: rows of higher priority are not sampled.
        finish: note what only the whole log shows; not of a piece.

    Raises:
        DataError: a column is wrong as a whole.
    """
    ledger, sample = Ledger(source.files), RowSample(asked.size, bound)
    texts: set[str] = set()
    counts = np.zeros(3, np.int64)
    reader = source.reader(asked.watched, ledger)
    for rows in source.completed(reader.batches(finish=finish), asked.watched):
        see(rows)
        texts |= {name for name in asked.untyped - texts if not _is_whole(rows.columns[name])}
        begin = int(counts.sum())
        part = np.zeros(len(rows), np.int8) if rows.part is None else rows.part
        counts += np.bincount(part, minlength=3)
        own = _sampled(rows, source.times(rows), begin, columns_of(asked.fitted))
        sample.add(own.filter(part == TRAIN))
    return Look(reader, ledger, counts, frozenset(texts), sample)


def _sampled(
    rows: Rows, time: NDArray[np.int64] | None, begin: int, names: Iterable[str]
) -> SampledRows:
    return SampledRows(
        splitmix64(rows.rows.view(np.uint64)),
        begin + np.arange(len(rows)),
        time,
        {name: rows.columns[name] for name in names},
    )


def _is_fitted(schema: Schema, feature: Feature) -> bool:
    derived = [one for one in schema.row_features if one.asked_multiplicity == "auto"]
    parts = {part for one in derived for part in one.parts}
    auto = feature.asked_multiplicity == "auto" or feature.name in parts
    return (auto and feature.least_count == 1) or feature.is_scaled


def _untyped(source: ClickSource, features: Sequence[Feature]) -> set[str]:
    categories = {f.source_column for f in features if f.decides_type}
    source.files.require(categories, some=categories)
    return {name for name in categories if source.files.is_untyped(name)}


def _is_whole(values: pa.Array) -> bool:
    if not pa.types.is_dictionary(values.type):
        return True  # all null
    return not pa.types.is_dictionary(decide_type(pa.chunked_array([values])).type)
