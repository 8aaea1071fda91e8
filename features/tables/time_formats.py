"""Dates and times as text in a declared form: `"%d.%m.%Y %H:%M"`, the codes of `strptime`.

A format becomes one regular expression that Arrow matches over the distinct texts of a batch, and
the parts that it finds become microseconds by arithmetic on the calendar, so that no row costs
Python. Names of months and days are the English ones, short or whole. Days from the civil calendar:
Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2021, https://howardhinnant.github.io/date_algorithms.html,
section "days_from_civil".
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.tables.ledger import mask_of

Ints = NDArray[np.int64]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_DAY_SECONDS, _SECOND = 86_400, 1_000_000
_ZONE = r"([zZ]|[+-][0-9]{2}(:?[0-9]{2})?)$"
_NOTHING = np.iinfo(np.int64).min
_NAME = "[A-Za-z]{3,9}"
_ONE_OR_TWO = "[0-9]{1,2}"


@dataclass(frozen=True)
class _Code:
    """pattern: of its text. width: of its digits, where another number may follow at once."""

    pattern: str
    width: int = 0


_CODES = {
    "Y": _Code("[0-9]{4}", 4),
    "y": _Code("[0-9]{2}", 2),
    "m": _Code(_ONE_OR_TWO, 2),
    "d": _Code(_ONE_OR_TWO, 2),
    "j": _Code("[0-9]{1,3}", 3),
    "b": _Code(_NAME),
    "a": _Code(_NAME),
    "H": _Code(_ONE_OR_TWO, 2),
    "I": _Code(_ONE_OR_TWO, 2),
    "M": _Code(_ONE_OR_TWO, 2),
    "S": _Code(_ONE_OR_TWO, 2),
    "f": _Code("[0-9]{1,9}", 6),
    "p": _Code(r"[AaPp]\.?[Mm]\.?"),
    "z": _Code("[Zz]|UTC|GMT|[+-][0-9]{2}:?(?:[0-9]{2})?"),
    "G": _Code("[0-9]{4}", 4),
    "V": _Code(_ONE_OR_TWO, 2),
    "u": _Code("[1-7]", 1),
}
_SAME = {"B": "b", "A": "a", "Z": "z", "e": "d", "h": "b"}
_SHORT = {"T": "%H:%M:%S", "D": "%m/%d/%y", "F": "%Y-%m-%d", "R": "%H:%M"}
_DATES = ({"m", "d"}, {"b", "d"}, {"j"}, {"m"}, {"b"})


@dataclass(frozen=True)
class TimeFormat:
    """A format that was understood.

    text: as declared. pattern: the regular expression of a whole text. codes: the parts that it
    finds. width: how many digits a text has, where it is one of digits alone; else 0.
    """

    text: str
    pattern: str
    codes: tuple[str, ...]
    width: int

    @property
    def has_zone(self) -> bool:
        """Whether a text says its zone."""
        return "z" in self.codes


@lru_cache(maxsize=256)
def time_format(text: str) -> TimeFormat:
    """Return what a format means.

    Raises:
        ValueError: a code is unknown or comes twice, or the codes do not make a date.
    """
    parts = _parts(text)
    codes = [code for code, _ in parts if code]
    pattern, width, all_digits = "", 0, True
    for at, (code, literal) in enumerate(parts):
        if not code:
            pattern, all_digits = pattern + _literal(literal, parts, at), False
            continue
        one = _CODES[code]
        next_code = parts[at + 1][0] if at + 1 < len(parts) else ""
        before = parts[at - 1][0] if at else ""
        touches = any(other and _CODES[other].width for other in (next_code, before))
        fixed = bool(one.width) and touches and code != "f"
        digits = f"[0-9]{{{one.width}}}" if fixed and code != "u" else one.pattern
        found = f"(?P<{code}>{digits})"
        fraction = code == "f" and at and not before and parts[at - 1][1] in (".", ",")
        pattern += f"{found})?" if fraction else found
        width, all_digits = width + one.width, all_digits and bool(one.width)
    return TimeFormat(text, f"^{pattern}$", tuple(codes), width if all_digits else 0)


def _literal(literal: str, parts: list[tuple[str, str]], at: int) -> str:
    """Return the pattern of what stands between codes; a fraction of a second may be absent."""
    follows = parts[at + 1][0] if at + 1 < len(parts) else ""
    if follows == "f" and literal in (".", ","):
        return f"(?:{re.escape(literal)}"
    return re.sub(r"(\\?\s)+", r"\\s+", re.escape(literal))


def _parts(text: str) -> list[tuple[str, str]]:
    """Return the format as pairs of a code and of what stands between codes, one of them empty."""
    for short, long in _SHORT.items():
        text = text.replace(f"%{short}", long)
    parts: list[tuple[str, str]] = []
    for percent, code, literal in re.findall(r"(%)-?(.)|([^%]+)", text):
        if percent and code == "%":
            parts.append(("", "%"))
        elif percent:
            known = _SAME.get(code, code)
            if known not in _CODES:
                allowed = ", ".join(f"%{one}" for one in (*_CODES, *_SAME, *_SHORT))
                raise ValueError(f"'%{code}' in the format '{text}' is none of {allowed}")
            parts.append((known, ""))
        else:
            parts.append(("", literal))
    codes = [code for code, _ in parts if code]
    twice = [code for code in codes if codes.count(code) > 1]
    if twice:
        raise ValueError(f"'%{twice[0]}' comes twice in the format '{text}'")
    _check_codes(text, set(codes))
    return parts


def _check_codes(text: str, codes: set[str]) -> None:
    has_year = len(codes & {"Y", "y"}) == 1 and any(one <= codes for one in _DATES)
    if not has_year and not {"G", "V"} <= codes:
        raise ValueError(
            f"the format '{text}' makes no date: it needs a year and a month, as in '%d.%m.%Y', "
            "'%Y-%m', '%d %b %Y' or '%G-W%V'"
        )
    if ("I" in codes) != ("p" in codes):
        raise ValueError(f"in the format '{text}' %I goes with %p, as in '%I:%M %p'; else use %H")
    if {"H", "I"} <= codes or ("M" in codes and not codes & {"H", "I"}):
        raise ValueError(f"the format '{text}' needs one hour, %H or %I with %p, before %M")


def parse_times(texts: pa.Array, form: TimeFormat) -> tuple[Ints, NDArray[np.bool_]]:
    """Return texts (N,) as microseconds since 1970 by their own clock, and which are times.

    What says its zone is converted to UTC; what does not is read as if it were UTC. Both (N,);
    what is no time is 0. Blanks around a text do not count.
    """
    encoded = texts.dictionary_encode() if not pa.types.is_dictionary(texts.type) else texts
    words = pc.utf8_trim_whitespace(encoded.dictionary)
    found = pc.extract_regex(words, form.pattern)
    good = np.asarray(found.is_valid())
    parts = {code: pc.fill_null(found.field(number), "") for number, code in enumerate(form.codes)}
    values, valid = _instants(parts, good)
    codes = np.asarray(encoded.indices.fill_null(0)).astype(np.int64)
    known = np.asarray(encoded.indices.is_valid())
    if not len(values):
        return np.zeros(len(codes), np.int64), np.zeros(len(codes), bool)
    return np.where(known, values[codes], 0), known & valid[codes]


def _instants(parts: dict[str, Any], good: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the microseconds of the parts that were found in D texts, and which are right."""
    number = {
        code: _number(values, good)
        for code, values in parts.items()
        if code not in ("a", "b", "f", "p", "z")
    }
    days, valid = _days(parts, number, good)
    hour = number.get("H", np.zeros(len(good), np.int64))
    if "I" in number:
        afternoon = np.asarray(pc.match_substring_regex(parts["p"], "^[Pp]"))
        valid &= (number["I"] >= 1) & (number["I"] <= 12)
        hour = number["I"] % 12 + 12 * afternoon
    minute, second = (number.get(code, np.zeros(len(good), np.int64)) for code in "MS")
    valid &= (hour <= 23) & (minute <= 59) & (second <= 60)  # 60: a leap second, the next minute
    seconds = days * _DAY_SECONDS + hour * 3600 + minute * 60 + second
    if "z" in parts:
        offset, known = _offset(parts["z"], good)
        seconds, valid = seconds - offset, valid & known
    micros = seconds * _SECOND + (_fraction(parts["f"], good) if "f" in parts else 0)
    return np.where(valid, micros, 0), valid


def _days(
    parts: dict[str, Any], number: dict[str, Ints], good: NDArray[np.bool_]
) -> tuple[Ints, NDArray[np.bool_]]:
    """Return days since 1970, and which dates the calendar has."""
    if "G" in number:
        week, day = number["V"], number.get("u", np.ones(len(good), np.int64))
        first = days_of(number["G"], np.full(len(good), 1), np.full(len(good), 4))
        monday = first - (first + 3) % 7  # 1970-01-01 was a Thursday; the 4th is in week 1
        days = monday + (week - 1) * 7 + day - 1
        after = days_of(number["G"] + 1, np.full(len(good), 1), np.full(len(good), 4))
        last = after - (after + 3) % 7
        return days, good & (week >= 1) & (days < last)
    year = number["Y"] if "Y" in number else number["y"]
    if "Y" not in number:
        year = year + np.where(year >= 69, 1900, 2000)
    one = np.ones(len(good), np.int64)
    if "j" in number:
        leap = _is_leap(year)
        first = days_of(year, one, one)
        return first + number["j"] - 1, good & (number["j"] >= 1) & (number["j"] <= 365 + leap)
    month, day = number.get("m", one), number.get("d", one)
    valid = good.copy()
    if "b" in parts:
        three = pc.utf8_lower(pc.utf8_slice_codeunits(parts["b"], 0, 3))
        at = pc.index_in(three, pa.array(_MONTHS, three.type)).fill_null(-1)
        month = np.asarray(at).astype(np.int64) + 1
    valid &= (month >= 1) & (month <= 12) & (day >= 1)
    length = _DAYS[np.clip(month, 1, 12) - 1] + ((month == 2) & _is_leap(year))
    return days_of(year, np.clip(month, 1, 12), day), valid & (day <= length)


def days_of(year: Ints, month: Ints, day: Ints) -> Ints:
    """Return days since 1970-01-01 of dates of the calendar, (N,)."""
    year = year - (month <= 2)
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _is_leap(year: Ints) -> NDArray[np.bool_]:
    return (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))


def _number(values: Any, good: NDArray[np.bool_]) -> Ints:
    filled = pc.if_else(pa.array(good), values, pa.scalar("0", values.type))
    return np.asarray(filled.cast(pa.int64()))


def _fraction(values: Any, good: NDArray[np.bool_]) -> Ints:
    """Return the digits behind the point as microseconds; more than six are cut."""
    six = pc.utf8_slice_codeunits(pc.utf8_rpad(values, 6, "0"), 0, 6)
    return _number(six, good)


def _offset(values: Any, good: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return seconds east of UTC, and which of them a zone can have."""
    digits = pc.utf8_rpad(pc.replace_substring_regex(values, "[^0-9]", ""), 4, "0")
    hours = _number(pc.utf8_slice_codeunits(digits, 0, 2), good)
    minutes = _number(pc.utf8_slice_codeunits(digits, 2, 4), good)
    west = np.asarray(pc.starts_with(values, "-"))
    seconds = hours * 3600 + minutes * 60
    return np.where(west, -seconds, seconds), (hours <= 18) & (minutes <= 59)


def parse_iso(
    texts: pa.Array, skipped: NDArray[np.bool_]
) -> tuple[Ints, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return microseconds by their own clock, which say their zone, and which are no times."""
    # More digits than microseconds hold are cut.
    values = pc.replace_substring_regex(texts, r"(\.[0-9]{6})[0-9]+", r"\1")
    zoned = mask_of(pc.match_substring_regex(values, r"[0-9][:0-9.]{4,}" + _ZONE))
    out = np.full(len(values), _NOTHING)
    bad = np.zeros(len(values), bool)
    for mask, kind in (
        (~skipped & zoned, pa.timestamp("us", "UTC")),
        (~skipped & ~zoned, pa.timestamp("us")),
    ):
        part = values.filter(pa.array(mask))
        out[mask], bad[mask] = _cast_instants(part, kind)
    return out, zoned, bad


def _cast_instants(texts: pa.Array, kind: pa.DataType) -> tuple[Any, Any]:
    """Return microseconds and which texts are no times."""
    bad = np.zeros(len(texts), bool)
    try:
        return np.asarray(texts.cast(kind).cast(pa.int64())), bad
    except pa.ArrowInvalid:
        out = np.full(len(texts), _NOTHING)
        for at, text in enumerate(texts.to_pylist()):
            try:
                out[at] = int(pa.scalar(text).cast(kind).cast(pa.int64()).as_py())
            except pa.ArrowInvalid:
                bad[at] = True
        return out, bad
