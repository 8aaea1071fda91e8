"""The first look at a click log: rows counted, column types decided, the encoder fitted.

Only what this needs is read: labels, weights, times, the split, the columns that scaling is
fitted on, and (in a CSV file) the categories, whose type the whole column decides. Features with
`min_count` are read a second time, when it is known which rows are for training: values are
counted over all of these, not over a sample (`recsys.features.encoding.value_counts` has the memory
it takes).
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.clicks.first_look import Asked, Look, look_at
from recsys.features.clicks.rows import ClickSource
from recsys.features.clicks.sample import RowSample
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION, SplitConfig, check_counts
from recsys.features.encoding.encoder import FeatureEncoder, known_values, knows_its_values
from recsys.features.encoding.multiplicity import settle
from recsys.features.encoding.value_counts import ValueCounts
from recsys.features.kinds.convert import decide_type, join_batches
from recsys.features.kinds.feature import Feature
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Ledger

SAMPLE_ROWS = 1_000_000
"""Rows of the log that the encoder is fitted on, those of them that are for training."""


Cuts = tuple[int, int] | None
"""`Survey.cuts`."""


@dataclass(frozen=True)
class Survey:
    """counts: rows of each part. whole: text columns that hold nothing but whole numbers."""

    counts: tuple[int, int, int]
    cuts: Cuts
    """Positions among the usable rows where validation and test begin; None: a column says."""
    whole: frozenset[str]
    encoder: FeatureEncoder


Known = Callable[[ClickSource, Schema, Cuts, frozenset[str]], dict[str, NDArray[np.int64]]]
"""Source, schema, cuts and whole columns -> feature name -> the hashes of values that it knows."""


def survey(
    source: ClickSource,
    schema: Schema,
    split: SplitConfig,
    lookups: int | None,
    *,
    look: Callable[[ClickSource, Asked], Look] = look_at,
    known_values_of: Known | None = None,
) -> Survey:
    """Read the log once, fit the encoder on a sample of its training rows.

    Args:
        source: the log.
        schema: of it.
        split: parts it.
        lookups: for `multiplicity: auto`.
        look: reads the rows.
        known_values_of: counts the values of features that know theirs; None: here.

    Raises:
        DataError: a label, a weight, a time or a part is not as declared; a part is empty.
    """
    asked = Asked.of(source, schema, SAMPLE_ROWS)
    seen = look(source, asked)
    counts, sample = seen.counts, seen.sample
    drops = seen.ledger.settle()
    total = int(counts.sum())
    seen.reader.refuse_no_rows()
    seen.reader.refuse_none_left(total, drops)
    cuts = None if split.kind == "column" else _cuts(split, total)
    if cuts is not None:
        counts = np.diff([0, *cuts, total])
    _check_counts(counts, source, split)
    sample.keep_before(total if cuts is None else cuts[0])
    whole = asked.untyped - seen.texts
    known = (known_values_of or _known)(source, schema, cuts, whole)
    encoder = _fit(source, schema, sample, whole, lookups, known)
    numbers = (int(counts[TRAIN]), int(counts[VALIDATION]), int(counts[TEST]))
    return Survey(numbers, cuts, whole, encoder)


def decided(values: pa.Array, *, whole: bool) -> pa.Array:
    """Return a converted column of a batch; text that is `whole` becomes whole numbers."""
    if not whole or not pa.types.is_dictionary(values.type):
        return values
    return decide_type(pa.chunked_array([values])).combine_chunks()


def _cuts(split: SplitConfig, total: int) -> tuple[int, int]:
    if split.kind == "none":
        return total, total
    shares = (1 - split.validation - split.test, 1 - split.test)
    first, second = (min(round(share * total), max(total - 1, 0)) for share in shares)
    return first, second if split.test else total


def _check_counts(counts: NDArray[np.int64], source: ClickSource, split: SplitConfig) -> None:
    try:
        check_counts(split, counts)
    except DataError as error:
        raise error.within(source.files.paths[0]) from None


def _fit(
    source: ClickSource,
    schema: Schema,
    sample: RowSample,
    whole: frozenset[str],
    lookups: int | None,
    known: Mapping[str, NDArray[np.int64]],
) -> FeatureEncoder:
    """Fit on the sample; a category whose values fitting does not need is there by its type."""
    columns = {}
    for name, kind in _types(source, schema, whole).items():
        if name in sample.pieces[0].columns:
            pieces = [piece.columns[name] for piece in sample.pieces]
            joined = join_batches(pieces, source.files.paths[0], name, untyped=False)
            text = pa.types.is_large_string(joined.type)
            columns[name] = (
                decide_type(joined.dictionary_encode()) if name in whole and text else joined
            )
        else:
            columns[name] = pa.nulls(len(sample), kind)
    reference = 0
    if schema.interactions.time is not None:
        reference = max(
            int(p.time.max()) for p in sample.pieces if p.time is not None and len(p.time)
        )
    table = pa.table(columns)
    settled = settle(schema, {"interactions": table}, lookups, known)
    encoder = FeatureEncoder.fit(settled, {"interactions": table}, reference_time=reference)
    return replace(encoder, known=known)


def _known(
    source: ClickSource, schema: Schema, cuts: Cuts, whole: frozenset[str]
) -> dict[str, NDArray[np.int64]]:
    """Count the values of all training rows, for the features that know theirs."""
    counted = count_values(source, schema, cuts, whole)
    return {f.name: known_values(schema, f, own) for f, own in counted.items()}


def count_values(
    source: ClickSource, schema: Schema, cuts: Cuts, whole: frozenset[str], position: int = 0
) -> dict[Feature, ValueCounts]:
    """Count the values of the training rows of a log, for the features that know theirs.

    Args:
        source: the log, or a piece of it.
        schema: of it.
        cuts: as in `Survey`.
        whole: as in `Survey`.
        position: of the first row among the usable ones of the whole log.
    """
    features = schema.features_of("interactions")
    counts = {f: ValueCounts(f) for f in features if knows_its_values(schema, f)}
    if not counts:
        return {}
    with closing(source.batches(list(counts), Ledger(source.files))) as batches:
        for rows in batches:
            mask = rows.part == TRAIN
            if cuts is not None:
                mask = position + np.arange(len(rows)) < cuts[0]
                position += len(rows)
            chosen = pa.array(mask)
            for feature, own in counts.items():
                name = feature.source_column
                own.add(decided(rows.columns[name], whole=name in whole).filter(chosen))
    return counts


def _types(source: ClickSource, schema: Schema, whole: frozenset[str]) -> dict[str, pa.DataType]:
    """Return the type of each feature's column, as the first rows have it."""
    with closing(
        source.batches(schema.features_of("interactions"), Ledger(source.files))
    ) as batches:
        columns = next(iter(batches)).columns
    kinds = {}
    for name, values in columns.items():
        kind = decided(values, whole=name in whole).type
        kinds[name] = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kinds
