"""Ids that would be the same if they were written in one way: of two tables, or within one.

Found by distinct ids: those of the log by a sample, those of a table up to a million. All of what
`IdForm` can do is tried at once; then what the matches do not need is taken away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.tables.id_forms import INEXACT_FLOAT, IdForm
from recsys.features.tables.ledger import is_text

_SAMPLE, _MOST = 10_000, 1_000_000
_LEAST_GAIN = 0.01
_MERGED = 0.05
_EVERYTHING: dict[str, Any] = {
    "trailing_zero": "drop",
    "leading_zeros": "drop",
    "form": "NFKC",
    "case": "lower",
    "strip": True,
}
_HEAD = r"^(?P<head>[^0-9]{1,32})[0-9]"
_ZERO_LED = r"^0[0-9]+$"
_DIGITS = r"^[0-9]+$"


@dataclass(frozen=True)
class NearMatch:
    """How ids have to be written so that two tables match.

    matched, before: distinct ids of the first table that the second has, written so and as they
    come; of: how many were looked at. merged: ids of the second that are then one with another.
    """

    form: IdForm
    matched: int
    before: int
    of: int
    merged: int

    def __str__(self) -> str:
        return f"ids match after {self.form.said()}: {self.matched:,} of {self.of:,}"

    def remedy(self, side: str) -> str:
        """Return what to set for ids of the side, and what that does."""
        return f"set schema.ids: {{{side}: {self.form.as_yaml()}}} ({self})"


def near_match(first: pa.Array, second: pa.Array) -> NearMatch | None:
    """Return how to write ids so that more of the first are among the second; None: no way.

    Args:
        first: (N,) distinct ids, those of the log.
        second: (M,) distinct ids of a table.
    """
    is_other = is_text(first.type) != is_text(second.type)
    left, right = as_words(first[:: max(1, len(first) // _SAMPLE)]), as_words(second[:_MOST])
    if left is None or right is None or not len(left) or not len(right):
        return None
    before = 0 if is_other else _matches(left, right)
    settings = dict(_EVERYTHING)
    if prefix := _prefix(left, right):
        settings["prefix"] = prefix
    everything = IdForm.model_validate(settings)
    written = everything.written(right)
    found = pc.is_in(everything.written(left), written)
    if pc.sum(found).as_py() < before + max(1, _LEAST_GAIN * len(left)):
        return None
    some = left.filter(found)
    others = right.filter(pc.is_in(written, everything.written(some)))
    form = _padded(_needed(settings, some, others), others, some)
    if any(pa.types.is_floating(ids.type) for ids in (first, second)):
        form = form.with_whole_floats()
    written = form.written(right)
    merged = len(right) - pc.count_distinct(written).as_py()
    if merged > _MERGED * len(right):
        return None
    return NearMatch(form, _matches(form.written(left), written), before, len(left), merged)


def as_words(ids: pa.Array) -> pa.Array | None:
    """Return ids (N,), without nulls, as text; None: they are neither text nor whole numbers."""
    ids = ids.drop_null()
    if is_text(ids.type):
        return ids.cast(pa.large_string())
    if pa.types.is_floating(ids.type):
        numbers = np.asarray(ids.cast(pa.float64()))
        if not (np.isfinite(numbers) & (numbers == np.floor(numbers))).all():
            return None
        if (np.abs(numbers) >= INEXACT_FLOAT).any():
            return None
        return pa.array(numbers.astype(np.int64)).cast(pa.large_string())
    return ids.cast(pa.large_string()) if pa.types.is_integer(ids.type) else None


@dataclass(frozen=True)
class Spellings:
    """Ids of one column that are one but for their writing.

    ids: how many there are beyond the first of each. examples: pairs of them. form: what makes
    them one.
    """

    ids: int
    examples: tuple[tuple[str, str], ...]
    form: IdForm

    def said(self, place: str) -> str:
        """Return it for people; `place`: whose ids, as in "items"."""
        pairs = ", ".join(f"{one!r} and {two!r}" for one, two in self.examples)
        return (
            f"{self.ids:,} ids of {place} differ from another in their writing alone ({pairs}): "
            f"each is learnt apart; if they are one, set schema.ids: {{{place}: "
            f"{self.form.as_yaml()}}}"
        )


def spellings(ids: pa.Array, num_examples: int = 3) -> Spellings | None:
    """Return ids, (N,) distinct ones, that one way of writing would make one; None: there are none.

    Whole numbers have one spelling.
    """
    if not is_text(ids.type):
        return None
    words = ids[:_MOST].drop_null().cast(pa.large_string())
    every = IdForm.model_validate(_EVERYTHING).written(words).dictionary_encode()
    codes = np.asarray(every.indices)
    counts = np.bincount(codes, minlength=len(every.dictionary))
    again = counts[codes] > 1
    if not again.any():
        return None
    several, groups = words.filter(pa.array(again)), codes[again]
    order = np.argsort(groups, kind="stable")
    same = np.flatnonzero(groups[order][1:] == groups[order][:-1])
    pairs = [(order[at], order[at + 1]) for at in same[:num_examples]]
    left, right = (several.take(pa.array([pair[side] for pair in pairs])) for side in (0, 1))
    form = _needed(
        dict(_EVERYTHING),
        several.take(pa.array(order[same])),
        several.take(pa.array(order[same + 1])),
        aligned=True,
    )
    return Spellings(
        int((counts[counts > 1] - 1).sum()),
        tuple(zip(left.to_pylist(), right.to_pylist(), strict=True)),
        form,
    )


def _needed(
    settings: dict[str, Any], left: pa.Array, right: pa.Array, *, aligned: bool = False
) -> IdForm:
    """Return the form without what the matches of (S,) ids do not need; `aligned`: one by one."""

    def matched(some: dict[str, Any]) -> int:
        form = IdForm.model_validate(some or {"as_text": True})
        one, two = form.written(left), form.written(right)
        return int(pc.sum(pc.equal(one, two)).as_py() or 0) if aligned else _matches(one, two)

    most = matched(settings)
    for key in list(settings):
        without = {name: value for name, value in settings.items() if name != key}
        if matched(without) >= most:
            settings = without
    if settings.get("form") == "NFKC" and matched(settings | {"form": "NFC"}) >= most:
        settings = settings | {"form": "NFC"}
    return IdForm.model_validate(settings or {"as_text": True})


def _padded(form: IdForm, *tables: pa.Array) -> IdForm:
    """Return a form that pads in place of one that drops zeros, where one width is meant."""
    if form.leading_zeros is None:
        return form
    rest = {key: value for key, value in form.settings().items() if key != "leading_zeros"}
    plain = IdForm.model_validate(rest or {"as_text": True})
    numbers = [_only(plain.written(words), _DIGITS) for words in tables]
    led = [_only(words, _ZERO_LED) for words in numbers]
    widths = pc.unique(pc.utf8_length(pa.concat_arrays(led)))
    longest = pc.max(pc.utf8_length(pa.concat_arrays(numbers))).as_py()
    if len(widths) != 1 or not 2 <= widths[0].as_py() <= 64 or longest > widths[0].as_py():
        return form
    rest.pop("trailing_zero", None)  # which padding does, too
    return IdForm.model_validate(rest | {"pad": widths[0].as_py()})


def _only(words: pa.Array, pattern: str) -> pa.Array:
    return words.filter(pc.match_substring_regex(words, pattern))


def _matches(left: pa.Array, right: pa.Array) -> int:
    """Return how many of the first are among the second."""
    return int(pc.sum(pc.is_in(left, right)).as_py() or 0)


def _prefix(left: pa.Array, right: pa.Array) -> str:
    """Return what most ids of one table begin with and those of the other do not."""
    one, two = _head(left), _head(right)
    if one.casefold() == two.casefold():
        return ""
    longer, shorter = (one, two) if len(one) >= len(two) else (two, one)
    return longer.removesuffix(shorter) if longer.endswith(shorter) else ""


def _head(words: pa.Array) -> str:
    """Return what stands before the digits of nearly all ids; "" where nothing does."""
    trimmed = IdForm(strip=True).written(words[:_SAMPLE])
    counts = pc.value_counts(pc.struct_field(pc.extract_regex(trimmed, _HEAD), "head"))
    known = [one for one in counts.to_pylist() if one["values"] is not None]
    most = max(known, key=lambda one: one["counts"], default=None)
    return most["values"] if most and most["counts"] >= 0.9 * len(trimmed) else ""
