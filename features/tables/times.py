"""How a column of times is read: whole numbers in a unit, Arrow times, or text in a form.

A column is kept as it came (numbers in its unit; microseconds for `datetime`) until every row is
known: only the column as a whole shows whether the unit is the right one
(`recsys.features.tables.time_check`).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.tables.known_formats import declared_as, formats_of
from recsys.features.tables.ledger import Cells, Mask, is_list, is_text, mask_of
from recsys.features.tables.sources import Policies, Rule
from recsys.features.tables.time_formats import parse_iso, parse_times, time_format

TimeUnit = Literal["s", "ms", "us", "ns", "datetime"]
NULL_TIME = np.iinfo(np.int64).min
"""Stands for null among raw times."""
UNITS: dict[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""Ticks a second."""
NULL_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "NaT", "\\N")
"""Text that stands for null in columns of numbers and times of a CSV file."""
SAID = Rule("times", choice="")
"""Of what is read as it is, and counted."""

_EARLIEST = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp())
_ISO_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_WHOLE = r"^[+-]?([0-9]{1,18}|[1-8][0-9]{18})(\.0*)?$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_FIXED_ZONE = r"[+-][0-9]{2}:[0-9]{2}"
_NO_CLOCK = "the time is no number of a clock"
_EXACT = 2.0**63

Raw = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class TimeForm:
    """unit: of numbers since 1970 (UTC), or `datetime`. format, zone: of text, where declared."""

    unit: TimeUnit
    format: str | None = None
    zone: str | None = None


class RawTimes(NamedTuple):
    """Times of N rows as they came.

    values: (N,) in their unit (microseconds for datetime), `NULL_TIME` where null; float64 where
    some have a fraction of the unit. zoned: (N,) which say their zone; None: not a kind that can.
    """

    values: Raw
    zoned: Mask | None = None


def check_form(form: TimeForm) -> None:
    """Check what is declared of a column of times.

    Raises:
        ValueError: a format or zone is wrong, or means nothing for the unit.
    """
    if form.unit != "datetime":
        for key, value in (("format", form.format), ("zone", form.zone)):
            if value is not None:
                raise ValueError(
                    f"{key} is of text and dates, and unit: {form.unit} is of numbers since 1970 "
                    f"in UTC: leave out one of them"
                )
    if form.format is not None and time_format(form.format).has_zone and form.zone is not None:
        raise ValueError(
            f"each text of the format '{form.format}' says its zone (%z): leave zone out"
        )
    if form.zone is not None and not re.fullmatch(_FIXED_ZONE, form.zone):
        try:
            ZoneInfo(form.zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"zone: '{form.zone}' is no time zone: write a name as 'Europe/Berlin' or an "
                "offset as '+01:00'"
            ) from None


def with_unit(given: Any) -> Any:
    """Return a declaration of times with `unit: datetime` where only a format or zone is given."""
    if not isinstance(given, dict) or "unit" in given:
        return given
    declared = any(given.get(key) is not None for key in ("format", "zone"))
    return {**given, "unit": "datetime"} if declared else given


def raw_times(cells: Cells, form: TimeForm) -> Raw:
    """Return a batch of times, (N,) in the form's unit (microseconds for datetime), or `NULL_TIME`.

    Raises:
        DataError: the column's type does not go with the form.
    """
    return read_times(cells, form).values


def read_times(cells: Cells, form: TimeForm) -> RawTimes:
    """Return a batch of times, and which of them say their zone.

    What is asked of a trained model may be written in ways that its log was not: Arrow times and
    ISO text, whatever the log has. They mean the same instant.

    Raises:
        DataError: the column's type does not go with the form.
    """
    kind = cells.values.type
    if pa.types.is_null(kind):
        return RawTimes(np.full(len(cells.values), NULL_TIME))
    if is_list(kind):
        cells.refuse("a list where one time is expected", "name the right column")
    if form.unit == "datetime":
        return _instants(cells, form)
    if cells.ledger.trained and _says_an_instant(cells.values):
        return RawTimes(_in_ticks(_instants(cells, TimeForm("datetime")).values, form.unit))
    return RawTimes(_numbers(cells, form.unit))


def microseconds(raw: Raw, unit: TimeUnit) -> NDArray[np.int64]:
    """Return raw times without nulls as microseconds since 1970."""
    if unit == "datetime":
        return raw.astype(np.int64)
    ticks = UNITS[unit]
    if raw.dtype.kind == "f":
        return np.rint(raw * (1_000_000 / ticks)).astype(np.int64)
    whole = raw.astype(np.int64)
    return whole * (1_000_000 // ticks) if ticks <= 1_000_000 else whole // (ticks // 1_000_000)


def guess_unit(values: NDArray[np.int64], latest: float) -> str | None:
    """Return the unit in which nearly all of `values` are between 1990 and `latest` (seconds)."""
    counts = {unit: int(is_plausible(values, ticks, latest).sum()) for unit, ticks in UNITS.items()}
    best = max(counts, key=lambda unit: counts[unit])
    return best if counts[best] > 0.9 * len(values) else None


def is_plausible(values: Raw, ticks: int, latest: float) -> NDArray[np.bool_]:
    """Return which values are between 1990 and `latest` (seconds) at `ticks` a second, (N,)."""
    return (values >= _EARLIEST * ticks) & (values <= int(latest * ticks))


def latest_seconds(policies: Policies, now: datetime | None = None) -> float:
    """Return the instant after which a time is in the future, in seconds since 1970."""
    if policies.latest_time == "now":
        return (now or datetime.now(UTC)).timestamp()
    try:
        instant = datetime.fromisoformat(policies.latest_time)
    except ValueError:
        raise ConfigError(
            f"policies.latest_time: '{policies.latest_time}' is neither 'now' nor an ISO date"
        ) from None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def _says_an_instant(values: pa.Array) -> bool:
    """Whether a column says instants by itself: Arrow times, or text that is ISO where it is."""
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return True
    return is_text(kind) and bool(mask_of(pc.match_substring_regex(values, _ISO_DATE)).any())


def _in_ticks(raw: Raw, unit: TimeUnit) -> Raw:
    """Return microseconds in a unit of numbers."""
    null, ticks = raw == NULL_TIME, UNITS[unit]
    if ticks >= 1_000_000:
        return np.where(null, NULL_TIME, np.where(null, 0, raw) * (ticks // 1_000_000))
    divisor = 1_000_000 // ticks
    if (raw[~null] % divisor).any():
        return np.where(null, float(NULL_TIME), raw / divisor)
    return np.where(null, NULL_TIME, raw // divisor)


def _numbers(cells: Cells, unit: str) -> Raw:
    """Numbers, of any Arrow type."""
    values, kind = cells.values, cells.values.type
    if pa.types.is_temporal(kind):
        cells.refuse(f"declared in {unit}, but the column is {kind}", "declare unit: datetime")
    if is_text(kind):
        return _numbers_of_text(cells, unit)
    if pa.types.is_uint64(kind):
        huge = mask_of(pc.greater(values, pa.scalar(2**63 - 1, kind)))
        cells.note(huge, _NO_CLOCK, "write numbers since 1970 or timestamps")
        values = pc.if_else(pa.array(huge), pa.scalar(None, kind), values)
    if pa.types.is_integer(kind):
        return np.asarray(values.cast(pa.int64(), safe=False).fill_null(NULL_TIME))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = np.asarray(values.cast(pa.float64()).fill_null(np.nan))
        if pa.types.is_float32(kind):
            _say_steps(cells, numbers, unit)
        return _whole_if_all(cells, numbers)
    cells.refuse(f"times are {kind}", "a time is a number or a timestamp")


def _whole_if_all(cells: Cells, numbers: NDArray[np.float64]) -> Raw:
    """Return float64 numbers (N,), NaN where null, as whole ones where all are."""
    null = np.isnan(numbers)
    huge = ~null & (np.abs(numbers) >= _EXACT)
    cells.note(huge, _NO_CLOCK, "write numbers since 1970 or timestamps")
    numbers = np.where(null | huge, -_EXACT, numbers)
    if (numbers != np.floor(numbers)).any():
        return numbers
    return numbers.astype(np.int64)


def _say_steps(cells: Cells, numbers: NDArray[np.float64], unit: str) -> None:
    largest = np.nanmax(np.abs(numbers), initial=0.0)
    step = float(np.spacing(np.float32(largest)))
    if step > 1:
        cells.note(
            ~np.isnan(numbers),
            f"float32 holds such numbers in steps of {step:g} {unit}: rows of one step have one "
            "time",
            "write whole numbers or float64 in the source",
            rule=SAID,
        )


def _numbers_of_text(cells: Cells, unit: str) -> Raw:
    values = cells.values
    remedy = "a time is a number, a timestamp or text in ISO or a declared format"
    known = values.drop_null()
    if mask_of(pc.match_substring_regex(values, _ISO_DATE)).any():
        remedy = "declare unit: datetime for dates as text"
    elif len(known) and formats_of(str(known[0])):
        remedy = f"{declared_as(str(known[0]))} for dates as text"
    null = _is_null(values)
    number = mask_of(pc.match_substring_regex(values, _NUMBER))
    bad = ~null & ~number
    if bad.all() and len(bad):
        cells.refuse(f"declared in {unit}, but the column is text", remedy)
    cells.note(bad, f"not a number of {unit}", remedy)
    whole = mask_of(pc.match_substring_regex(values, _WHOLE))
    if whole[number].all():
        digits = pc.replace_substring_regex(values, r"^\+|\..*$", "")
        found = pc.if_else(pa.array(number), digits, pa.scalar(None, digits.type))
        return np.asarray(found.cast(pa.int64()).fill_null(NULL_TIME))
    signless = pc.replace_substring_regex(values, r"^\+", "")
    found = pc.if_else(pa.array(number), signless, pa.scalar(None, signless.type))
    return _whole_if_all(cells, np.asarray(found.cast(pa.float64()).fill_null(np.nan)))


def _is_null(values: pa.Array) -> Mask:
    return mask_of(pc.is_null(values)) | mask_of(
        pc.is_in(values, pa.array(NULL_WORDS, values.type))
    )


def _instants(cells: Cells, form: TimeForm) -> RawTimes:
    """Arrow times or text as int64 microseconds; without a zone those of the form's, or UTC."""
    values, kind = cells.values, cells.values.type
    if is_text(kind):
        return _instants_of_text(cells, values, form)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        if form.format is not None and not cells.ledger.trained:
            cells.refuse(
                f"declared with format: '{form.format}', but the column is {kind}",
                "leave format out and declare unit: datetime",
            )
        if pa.types.is_date(kind):
            values = values.cast(pa.timestamp("ms"))
        zoned = np.full(len(values), values.type.tz is not None)
        whole = values.cast(pa.timestamp("us", tz=values.type.tz), safe=False).cast(pa.int64())
        return _localised(cells, np.asarray(whole.fill_null(NULL_TIME)), zoned, form)
    if form.format is not None and _is_whole(values):
        return _instants_of_text(cells, _digits(values, form.format), form)
    _refuse_numbers(cells, form)


def _is_whole(values: pa.Array) -> bool:
    if pa.types.is_integer(values.type):
        return True
    if not pa.types.is_floating(values.type):
        return False
    known = np.asarray(values.drop_null().cast(pa.float64()))
    known = known[~np.isnan(known)]
    return bool((known == np.floor(known)).all() and (np.abs(known) < _EXACT).all())


def _digits(values: pa.Array, text: str) -> pa.Array:
    """Return whole numbers as text with the zeros in front that their format has."""
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    texts = values.cast(pa.int64(), safe=False).cast(pa.string())
    width = time_format(text).width
    return pc.utf8_lpad(texts, width, "0") if width else texts


def _refuse_numbers(cells: Cells, form: TimeForm) -> NoReturn:
    values, kind = cells.values, cells.values.type
    known = np.asarray(values.drop_null() if pa.types.is_integer(kind) else [], np.int64)
    unit = guess_unit(known, datetime.now(UTC).timestamp()) if len(known) else None
    given = "as datetime" if form.format is None else f"with format: '{form.format}'"
    remedy = "declare the unit: s, ms, us or ns"
    if unit:
        remedy = f"set the unit to {unit}"
    elif len(known) and formats_of(str(known[0])):
        remedy = declared_as(str(known[0]))
    cells.refuse(f"declared {given}, but the column is {kind}", remedy)


def _instants_of_text(cells: Cells, values: pa.Array, form: TimeForm) -> RawTimes:
    texts = values.cast(pa.string())
    null = _is_null(texts)
    if form.format is None:
        out, zoned, bad = parse_iso(texts, null)
        _note_not_iso(cells, texts, bad)
        return _localised(cells, out, zoned, form)
    declared = time_format(form.format)
    found, good = parse_times(texts, declared)
    out = np.where(good & ~null, found, NULL_TIME)
    zoned = np.full(len(texts), declared.has_zone)
    bad = ~null & ~good
    if bad.any() and cells.ledger.trained and not form.format.startswith("%Y-%d"):
        more, own, bad = parse_iso(texts, ~bad)
        late = ~null & ~good & ~bad
        out, zoned = np.where(late, more, out), np.where(late, own, zoned)
    if bad.any():
        _note_other_format(cells, texts, bad, good & ~null, form.format)
    return _localised(cells, out, zoned, form)


def _note_not_iso(cells: Cells, texts: pa.Array, bad: Mask) -> None:
    if not bad.any():
        return
    first = str(texts[int(np.flatnonzero(bad)[0])])
    remedy = "write ISO 8601 (2024-05-31 or 2024-05-31T13:45:00Z)"
    if mask_of(pc.match_substring_regex(texts, r"^[0-9]{9,19}$")).any():
        remedy = "the column holds whole numbers: declare the unit s, ms, us or ns"
    elif formats_of(first):
        remedy = f"{declared_as(first)}, or write ISO 8601 (2024-05-31T13:45:00Z)"
    cells.note(bad, "not a date or a time", remedy)


def _note_other_format(cells: Cells, texts: pa.Array, bad: Mask, good: Mask, text: str) -> None:
    """Note values that are not in the declared format, and a row that is."""
    others = formats_of(str(texts[int(np.flatnonzero(bad)[0])]))
    reason = f"not a time of the declared format '{text}'"
    at = np.flatnonzero(good)
    if not len(at):
        remedy = "declare the format that the column has"
        remedy += f": format: '{others[0]}'" if others else ", as in '%d.%m.%Y %H:%M'"
        cells.note(bad, reason, remedy)
        return
    places = cells.ledger.files.places(cells.rows[at[:1]])
    where = f" at {places[0]}" if places else ""
    reason += f", but of '{others[0]}'" if others else ""
    remedy = f"bring the column to one form; {texts[int(at[0])].as_py()!r}{where} is as declared"
    cells.note(bad, reason, remedy)


def _localised(cells: Cells, values: NDArray[np.int64], zoned: Mask, form: TimeForm) -> RawTimes:
    """Turn times without a zone, (N,) by their own clock, to UTC; counted where a clock jumps."""
    own = np.flatnonzero(~zoned & (values != NULL_TIME))
    if form.zone is None or not len(own):
        return RawTimes(values, zoned)
    naive = pa.array(values[own], pa.timestamp("us"))
    first, last = (
        np.asarray(
            pc.assume_timezone(naive, form.zone, ambiguous=which, nonexistent=which).cast(
                pa.int64()
            )
        )
        for which in ("earliest", "latest")
    )
    for mask, what, taken in (
        (last - first > 1, "twice", "the first is taken"),
        (last - first == 1, "never", "the instant of the change is taken"),
    ):
        where = np.zeros(len(values), bool)
        where[own[mask]] = True
        reason = f"the clock of {form.zone} shows this time {what}: {taken}"
        cells.note(where, reason, "write times with their zone in the source", rule=SAID)
    out = values.copy()
    out[own] = np.where(last - first == 1, last, first)
    return RawTimes(out, np.ones(len(values), bool))
