"""The numbers and words of a row's roles: label, weight, order, part of the split.

Each function reads one column of a batch and returns its values and which of them are usable;
the others are in the ledger.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.strict import nearest
from recsys.features.kinds.convert import number
from recsys.features.table_roles import EventTypes, LabelColumn, Outcome
from recsys.features.tables.conditions import is_one_of
from recsys.features.tables.ledger import Cells, Mask, is_list, is_text, mask_of
from recsys.features.tables.sources import Policies

_NUMBERS = "name the right column, or write it as numbers in the source"
_WORDS = "name the values that count as 1 with one_of, or write it as numbers in the source"
_LARGEST = float(np.finfo(np.float32).max)
_FILL = "fill it in the source, or leave such rows out with interactions.where"
_PARTS = {"train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2}


def labels(
    column: Cells, role: LabelColumn, policies: Policies
) -> tuple[NDArray[np.float32], Mask]:
    """Return 0 or 1, (N,) float32: the column itself, or whether it is what the role names."""
    found, usable = _zero_or_one(column, role, policies, "label", "interactions.label.at_least")
    null = np.isnan(found)
    column.note(null, "the label is null", _FILL, show=False)
    return found, usable & ~null


def outcomes(column: Cells, role: Outcome, policies: Policies) -> tuple[NDArray[np.float32], Mask]:
    """Return 0, 1 or, where the column is null, NaN, (N,) float32; null is usable."""
    what = f"outcome '{role.name}'"
    return _zero_or_one(column, role, policies, what, f"at_least of the {what}")


def weights(column: Cells, policies: Policies) -> tuple[NDArray[np.float32], Mask]:
    """Return numbers of zero or more, (N,) float32; by policy an infinite one costs its row.

    So does one that float32 does not hold.
    """
    values = np.asarray(number(column, policies, _NUMBERS).fill_null(np.nan))
    lost = np.isnan(values)
    column.note(lost & ~_infinite(column), "the weight is null or NaN", _FILL, show=False)
    column.note(values < 0, "the weight is negative", "a weight is zero or more")
    huge = values > _LARGEST
    column.note(
        huge,
        f"the weight is larger than {_LARGEST:.1e}, the largest number of 32 bits",
        "correct the source",
        rule=policies.rule("infinite_numbers", "null to leave such rows out"),
    )
    good = (values >= 0) & ~huge
    return np.where(good, values, 0).astype(np.float32), good


def refuse_useless_weights(weight: NDArray[np.float32], column: str, file: object) -> None:
    """Refuse weights (E,) of a whole log by which no loss can be computed.

    Raises:
        DataError: all are zero, or they add up to more than float32 holds.
    """
    total = float(weight.sum(dtype=np.float64))
    if len(weight) and total == 0:
        raise DataError(
            "all weights are zero: no row would count",
            file=file,
            column=column,
            remedy="correct the source, or leave interactions.weight (or events.weights) out",
        )
    if not total <= _LARGEST:
        raise DataError(
            f"the weights add up to more than {_LARGEST:.1e}, the largest number of 32 bits",
            file=file,
            column=column,
            remedy="divide all of them by one number in the source",
        )


def orders(column: Cells, policies: Policies) -> tuple[NDArray[np.int64], Mask]:
    """Return whole numbers of zero or more, (N,) int64."""
    values = np.asarray(number(column, policies, _NUMBERS).fill_null(np.nan))
    rule = policies.rule("bad_times")
    null, negative = np.isnan(values), values < 0
    leave = f"leave such rows out with where: [{{column: {column.column}, at_least: 0}}]"
    column.note(null, "the order is null", leave, rule=rule, show=False)
    column.note(negative, "the order is negative", leave, rule=rule)
    huge = values >= 2.0**63
    column.note(
        huge,
        "the order is larger than a whole number of 64 bits",
        leave.replace("at_least: 0", "at_most: 9.0e+18"),
        rule=rule,
    )
    fraction = ~null & (values != np.floor(values))
    column.note(fraction, "the order is a fraction", "an order is a whole number")
    good = ~null & ~negative & ~fraction & ~huge
    if pa.types.is_integer(column.values.type):  # exact above 2**53
        return np.asarray(column.values.fill_null(0)).astype(np.int64), good
    return np.where(good, values, 0).astype(np.int64), good


def split_parts(column: Cells) -> tuple[NDArray[np.int8], Mask]:
    """Return the part that a word names, (N,) int8: 0 train, 1 validation, 2 test."""
    values = column.values
    remedy = "the split column holds the words train, validation (valid, val) and test"
    if pa.types.is_null(values.type):
        values = values.cast(pa.string())
    if not is_text(values.type):
        column.refuse(f"the split is {values.type}", remedy)
    words = pc.utf8_lower(pc.utf8_trim_whitespace(values)).cast(pa.string())
    at = np.asarray(pc.index_in(words, pa.array(list(_PARTS))).fill_null(-1))
    column.note(at < 0, "no known part of the split", remedy)
    return np.asarray(np.array([*_PARTS.values(), 0], np.int8)[at]), at >= 0


def event_types(
    column: Cells, role: EventTypes, policies: Policies
) -> tuple[NDArray[np.int8], Mask]:
    """Return the place of each row's type among `role.names`, (N,) int8.

    Raises:
        DataError: the column holds neither text nor whole numbers.
    """
    values, names = column.values, list(role.names)
    if pa.types.is_floating(values.type):
        column.refuse(
            f"the type of an event is {values.type}", "types are text, or whole numbers: cast them"
        )
    if is_list(values.type):
        column.refuse("the type of an event is a list", "a row has one type")
    texts = values if is_text(values.type) else values.cast(pa.string())
    at = np.asarray(pc.index_in(texts, pa.array(names, texts.type)).fill_null(-1))
    rule = policies.rule("unknown_events", "drop to leave such rows out")
    null = ~np.asarray(values.is_valid())
    known = ", ".join(names)
    other = (at < 0) & ~null
    unnamed = pc.unique(texts.filter(pa.array(other))).to_pylist()
    for one in unnamed:
        same = other & mask_of(pc.equal(texts, one))
        column.note(
            same,
            f"the type of event '{_short(one)}' is not among {known}",
            f"name it in interactions.events{nearest(one, names)}",
            rule=rule,
            show=False,
        )
    column.note(
        null, "the type of the event is null", "fill it in the source", rule=rule, show=False
    )
    return at.astype(np.int8), at >= 0


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _zero_or_one(
    column: Cells, role: LabelColumn, policies: Policies, what: str, key: str
) -> tuple[NDArray[np.float32], Mask]:
    if role.one_of is not None:
        null = ~np.asarray(column.values.is_valid())
        found = np.where(null, np.nan, is_one_of(column, role.one_of))
        return found.astype(np.float32), np.ones(len(found), bool)
    values = np.asarray(number(column, policies, _WORDS).fill_null(np.nan))
    null = np.isnan(values)
    if role.at_least is not None:
        found = np.where(null, np.nan, values >= role.at_least)
        return found.astype(np.float32), np.ones(len(values), bool)
    other = ~null & (values != 0) & (values != 1)
    remedy = f"set {key} to the least value that counts as 1"
    column.note(other, f"the {what} is neither 0 nor 1", remedy)
    return values.astype(np.float32), ~other


def _infinite(column: Cells) -> Mask:
    """Which values were infinities before they became null (the ledger has them already)."""
    if is_text(column.values.type):
        words = pc.utf8_lower(column.values)
        return mask_of(pc.match_substring_regex(words, r"^[+-]?inf(inity)?$"))
    if pa.types.is_floating(column.values.type):
        return mask_of(pc.is_inf(column.values))
    return np.zeros(len(column.values), bool)
