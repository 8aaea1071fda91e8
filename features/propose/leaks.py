"""Features that know the answer: the target itself, copies of it, what only the future knows.

A sample of the training rows with both labels is enough: a copy of the label, or of anything that
the label is a threshold of, separates them nearly alone. A feature of many values is given its
mean label on one half of the sample and judged on the other, so that no value is judged by its own
row. What users' or items' tables hold of later rows cannot be known from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.kinds.feature import Feature
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables
from recsys.features.tables.ledger import is_list
from recsys.metrics.classification import auc

SAMPLE_ROWS = 50_000
"""Training rows that are looked at, evenly spread."""
TOO_GOOD = 0.98
"""AUC of one feature alone from which it is said to know the answer."""
_LEAST = 20
"""Rows of each label that it takes to say so."""
_WITHOUT = 0.9
"""Where more rows than this are positive, rows of a value that are all positive say nothing."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Training rows: their numbers (S,), label (S,) or None, weight (S,), and of which row."""

    rows: NDArray[np.int64]
    label: NDArray[np.float32] | None
    weight: NDArray[np.float32]


def leak_warnings(schema: Schema, tables: Tables, parts: NDArray[np.int8]) -> list[str]:
    """Return a sentence for each feature that seems to know the answer; parts: (E,)."""
    found = dict(_declared(schema))
    sample = _sample(tables, parts)
    for feature in schema.column_features:
        if feature.name in found:
            continue
        why = _suspected(feature, tables, sample)
        if why is not None:
            found[feature.name] = why
    return [f"feature '{name}' {why}" for name, why in found.items()]


def _declared(schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield features that read the column of a target or of the weight."""
    roles = schema.interactions
    targets = {} if roles.label is None else {roles.label.column: "the label"}
    targets |= {one.column: f"the outcome '{one.name}'" for one in roles.outcomes}
    if roles.weight is not None:
        targets[roles.weight] = "the weight"
    for feature in schema.features_of("interactions"):
        what = targets.get(feature.source_column)
        if what is not None:
            yield (
                feature.name,
                f"is {what} itself (column '{feature.source_column}'), which no request knows: "
                "remove it from the features",
            )


def _sample(tables: Tables, parts: NDArray[np.int8]) -> Sample:
    events = tables.events
    rows = np.flatnonzero(parts == 0)
    rows = rows[:: max(1, len(rows) // SAMPLE_ROWS)]
    label = None if events.label is None else events.label[rows]
    return Sample(rows, label, events.weight[rows])


def _suspected(feature: Feature, tables: Tables, sample: Sample) -> str | None:
    table, events = str(feature.table), tables.events
    if table == "interactions":
        source, rows = events.context, sample.rows
    elif table == "items":
        source, rows = tables.items, events.item_row[sample.rows].astype(np.int64)
    else:
        source, rows = tables.users, events.user_row[sample.rows].astype(np.int64)
    name = feature.source_column
    if name not in source.column_names:
        return None
    values = source.column(name).take(pa.array(rows))
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks > 1 else values.chunk(0)
    numbers = _numbers(values)
    if table == "interactions" and numbers is not None and _is_copy(numbers, sample.weight):
        return (
            "holds the weight of the row under another name, or what grows or falls with it: no "
            "request knows it; remove it from the features"
        )
    if sample.label is None:
        return None
    return _knows(values, numbers, sample.label, is_category=feature.is_category)


def _knows(
    values: pa.Array, numbers: Values | None, label: NDArray[np.float32], *, is_category: bool
) -> str | None:
    positives = int((label > 0).sum())
    if min(positives, len(label) - positives) < _LEAST:
        return None
    null = np.asarray(values.is_null())
    filled = label[~null]
    some = null.any() and len(filled) >= _LEAST and positives < _WITHOUT * len(label)
    if some and (filled > 0).all():
        return (
            f"is filled only in rows with label 1 ({len(filled):,} of {len(label):,} looked "
            "at): it is known only afterwards; remove it from the features"
        )
    score = 0.5 if numbers is None else _separation(numbers, label)
    if is_category or numbers is None:
        score = max(score, _separation_by_value(values, label))
    if score < TOO_GOOD:
        return None
    return (
        f"alone separates the labels nearly without error (AUC {score:.3f} on {len(label):,} "
        "training rows): a copy of the label, or known only afterwards; if no request knows it, "
        "remove it from the features"
    )


def _separation(numbers: Values, label: NDArray[np.float32]) -> float:
    """Return the AUC of numbers, or of their opposite; a missing one is as good as their mean."""
    known = ~np.isnan(numbers)
    filled = np.where(known, numbers, numbers[known].mean() if known.any() else 0.0)
    return _either(auc(filled, label))


def _separation_by_value(values: pa.Array, label: NDArray[np.float32]) -> float:
    """Return the AUC on every other row of the mean label that a value has on the rows between."""
    if is_list(values.type) or pa.types.is_null(values.type):
        return 0.5
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(len(encoded.dictionary))).astype(np.int64)
    half = np.arange(len(codes)) % 2 == 0
    size = len(encoded.dictionary) + 1
    sums = np.bincount(codes[half], label[half], minlength=size)
    counts = np.bincount(codes[half], minlength=size)
    rates = (sums + float(label[half].mean())) / (counts + 1)
    return _either(auc(rates[codes[~half]], label[~half]))


def _either(value: float) -> float:
    return 0.5 if np.isnan(value) else max(value, 1 - value)


def _numbers(values: pa.Array) -> Values | None:
    """Return numbers, NaN where null or infinite; None of other values."""
    kind = values.type
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    elif pa.types.is_temporal(kind):
        values = values.cast(pa.int64()) if pa.types.is_timestamp(kind) else None
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    if values is None:
        return None
    found = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(found), found, np.nan)


def _is_copy(numbers: Values, weight: NDArray[np.float32]) -> bool:
    """Whether a number and the weight are functions of each other that only grow, or only fall."""
    known = ~np.isnan(numbers)
    x, w = numbers[known], weight[known].astype(np.float64)
    if len(x) < _LEAST or len(x) < 0.5 * len(numbers):
        return False
    order = np.lexsort((w, x))
    x, w = x[order], w[order]
    new_x, step = x[1:] != x[:-1], w[1:] - w[:-1]
    if (step[~new_x] != 0).any():  # one number, several weights
        return False
    if 1 + int(new_x.sum()) < 3:
        return False
    steps = step[new_x]
    return bool((steps > 0).all() or (steps < 0).all())
