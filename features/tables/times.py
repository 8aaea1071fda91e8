"""Times of a log: one unit, checked against the calendar over the whole column.

A clock column is kept as it came (whole numbers in its unit; microseconds for `datetime`) until
every row is known: only the column as a whole tells milliseconds that were declared as seconds
from a single bad row, or shows that two units are mixed.
"""

from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.tables.ledger import Cells, Ledger, is_list, is_text, mask_of
from recsys.features.tables.sources import Policies

TimeUnit = Literal["s", "ms", "us", "ns", "datetime"]
NULL_TIME = np.iinfo(np.int64).min
"""Stands for null among raw times."""
UNITS: dict[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""Ticks a second."""
NULL_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "NaT", "\\N")
"""Text that stands for null in columns of numbers and times of a CSV file."""

_EARLIEST = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp())
_ZONE = r"([zZ]|[+-][0-9]{2}(:?[0-9]{2})?)$"
_ISO_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"


def raw_times(cells: Cells, unit: TimeUnit) -> NDArray[np.int64]:
    """Return a batch of times, (N,) int64 in `unit` (microseconds for datetime), or `NULL_TIME`.

    Raises:
        DataError: the column's type does not go with the unit.
    """
    kind = cells.values.type
    if pa.types.is_null(kind):
        return np.full(len(cells.values), NULL_TIME)
    if is_list(kind):
        cells.refuse("a list where one time is expected", "name the right column")
    values = _instants(cells) if unit == "datetime" else _whole(cells, unit)
    return np.asarray(values.fill_null(NULL_TIME))


def microseconds(raw: NDArray[np.int64], unit: TimeUnit) -> NDArray[np.int64]:
    """Return raw times without nulls as microseconds since 1970."""
    if unit == "datetime":
        return raw
    ticks = UNITS[unit]
    return raw * (1_000_000 // ticks) if ticks <= 1_000_000 else raw // (ticks // 1_000_000)


def guess_unit(values: NDArray[np.int64], latest: float) -> str | None:
    """Return the unit in which nearly all of `values` lie between 1990 and `latest` (seconds)."""
    counts = {unit: int(_plausible(values, ticks, latest).sum()) for unit, ticks in UNITS.items()}
    best = max(counts, key=lambda unit: counts[unit])
    return best if counts[best] > 0.9 * len(values) else None


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


def check_times(
    raw: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    column: str,
    unit: TimeUnit,
    ledger: Ledger,
    policies: Policies,
    latest: float,
) -> NDArray[np.bool_]:
    """Note null, negative, future and unlikely times; return which rows stay, (N,) bool."""
    policy = f"bad_times: {policies.bad_times}"
    ticks = UNITS["us" if unit == "datetime" else unit]
    null, known = raw == NULL_TIME, raw != NULL_TIME
    negative = known & (raw < 0)
    rest = known & ~negative
    good = rest & _plausible(raw, ticks, latest)
    odd = rest & ~good
    if odd.any() and unit != "datetime":
        _check_unit(raw, rows, good, odd, column=column, unit=unit, ledger=ledger, latest=latest)
    drop = "correct the source, or set policies.bad_times: drop to leave such rows out"
    when = datetime.fromtimestamp(latest, UTC).isoformat(timespec="seconds")
    future = odd & (raw > latest * ticks)
    early = (
        "the time is before 1990",
        "if these are not times but an order, declare interactions.order; "
        f"if they are times, the unit '{unit}' is wrong or the rows are (policies.bad_times: drop)",
    )
    faults = (
        (null, "the time is null", drop),
        (negative, "the time is negative", drop),
        (future, f"the time is in the future (after {when})", f"{drop}; see policies.latest_time"),
        (odd & ~future, *early),
    )
    for mask, reason, remedy in faults:
        at = np.flatnonzero(mask)
        if len(at):
            value = "" if raw[at[0]] == NULL_TIME else _shown(int(raw[at[0]]), unit)
            ledger.note(column, reason, rows[at], remedy=remedy, policy=policy, value=value)
    return np.asarray(good, bool)


def _check_unit(
    raw: NDArray[np.int64],
    rows: NDArray[np.int64],
    good: NDArray[np.bool_],
    odd: NDArray[np.bool_],
    *,
    column: str,
    unit: TimeUnit,
    ledger: Ledger,
    latest: float,
) -> None:
    """Note, beyond any policy, times that make sense in another unit than the declared one."""
    others = {
        other: odd & _plausible(raw, ticks, latest)
        for other, ticks in UNITS.items()
        if other != unit
    }
    best = max(others, key=lambda other: int(others[other].sum()))
    at = np.flatnonzero(others[best])
    if len(at) == 0:
        return
    value = str(raw[at[0]])
    if good.any():
        ledger.note(
            column,
            f"times in mixed units: {int(good.sum()):,} rows are plausible as {unit} (declared), "
            f"{len(at):,} as {best}",
            rows[at],
            remedy="bring the column to one unit in the source",
            value=value,
        )
    else:
        ledger.note(
            column,
            f"declared as {unit}, but the times lie between 1990 and now as {best}",
            rows[at],
            remedy=f"set the unit to {best}",
            value=value,
        )


def _plausible(values: NDArray[np.int64], ticks: int, latest: float) -> NDArray[np.bool_]:
    return (values >= _EARLIEST * ticks) & (values <= int(latest * ticks))


def _shown(value: int, unit: TimeUnit) -> str:
    try:
        ticks = UNITS["us" if unit == "datetime" else unit]
        when = datetime.fromtimestamp(value / ticks, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(value)
    return when if unit == "datetime" else f"{value} ({when})"


def _whole(cells: Cells, unit: str) -> pa.Array:
    """Whole numbers, of any Arrow type."""
    values, kind = cells.values, cells.values.type
    if pa.types.is_temporal(kind):
        cells.refuse(f"declared in {unit}, but the column is {kind}", "declare unit: datetime")
    if is_text(kind):
        return _whole_text(cells, unit)
    if pa.types.is_integer(kind):
        return values.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = np.asarray(values.cast(pa.float64()).fill_null(np.nan))
        null = np.isnan(numbers)
        fraction = ~null & ((numbers != np.floor(numbers)) | (np.abs(numbers) >= 2.0**63))
        cells.note(
            fraction,
            "the time is not a whole number",
            "write whole numbers (milliseconds keep fractions of a second) or timestamps",
        )
        return pa.array(np.where(null | fraction, 0, numbers).astype(np.int64), mask=null)
    cells.refuse(f"times are {kind}", "a time is a whole number or a timestamp")


def _whole_text(cells: Cells, unit: str) -> pa.Array:
    values = cells.values
    remedy = "a time is a whole number, a timestamp or ISO text"
    if mask_of(pc.match_substring_regex(values, _ISO_DATE)).any():
        remedy = "declare unit: datetime for dates as text"
    if not cells.untyped:
        cells.refuse(f"declared in {unit}, but the column is text", remedy)
    null = ~mask_of(pc.is_valid(values)) | mask_of(pc.is_in(values, pa.array(NULL_WORDS)))
    number = mask_of(
        pc.match_substring_regex(values, r"^[+-]?([0-9]{1,18}|[1-8][0-9]{18})(\.0*)?$")
    )
    cells.note(~null & ~number, f"not a whole number of {unit}", remedy)
    digits = pc.replace_substring_regex(values, r"^\+|\..*$", "")
    return pc.if_else(pa.array(number), digits, pa.scalar(None, digits.type)).cast(pa.int64())


def _instants(cells: Cells) -> pa.Array:
    """Arrow times or ISO text as int64 microseconds, UTC where no zone is given."""
    values, kind = cells.values, cells.values.type
    if is_text(kind):
        return _parse_iso(cells)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        whole = values.drop_null() if pa.types.is_integer(kind) else pa.array([], pa.int64())
        known = np.asarray(whole, np.int64)
        unit = guess_unit(known, datetime.now(UTC).timestamp()) if len(known) else None
        remedy = f"set the unit to {unit}" if unit else "declare the unit: s, ms, us or ns"
        cells.refuse(f"declared as datetime, but the column is {kind}", remedy)
    if pa.types.is_date(kind):
        values = values.cast(pa.timestamp("ms"))
    return values.cast(pa.timestamp("us", tz=values.type.tz), safe=False).cast(pa.int64())


def _parse_iso(cells: Cells) -> pa.Array:
    values = cells.values.cast(pa.string())
    null = mask_of(pc.is_null(values)) | mask_of(pc.is_in(values, pa.array(NULL_WORDS)))
    # More digits than microseconds hold are cut.
    values = pc.replace_substring_regex(values, r"(\.[0-9]{6})[0-9]+", r"\1")
    zoned = mask_of(pc.match_substring_regex(values, r"[0-9][:0-9.]{4,}" + _ZONE))
    out = np.full(len(values), NULL_TIME)
    bad = np.zeros(len(values), bool)
    for mask, kind in (
        (~null & zoned, pa.timestamp("us", "UTC")),
        (~null & ~zoned, pa.timestamp("us")),
    ):
        part = values.filter(pa.array(mask))
        out[mask], bad[mask] = _cast_instants(part, kind)
    remedy = "write ISO 8601 (2024-05-31 or 2024-05-31T13:45:00Z)"
    if mask_of(pc.match_substring_regex(values, r"^[0-9]{9,19}$")).any():
        remedy = "the column holds whole numbers: declare the unit s, ms, us or ns"
    cells.note(bad, "not a date or a time", remedy)
    return pa.array(out, mask=null | bad)


def _cast_instants(texts: pa.Array, kind: pa.DataType) -> tuple[Any, Any]:
    """Return microseconds and which texts are no times."""
    bad = np.zeros(len(texts), bool)
    try:
        return np.asarray(texts.cast(kind).cast(pa.int64())), bad
    except pa.ArrowInvalid:
        out = np.full(len(texts), NULL_TIME)
        for at, text in enumerate(texts.to_pylist()):
            try:
                out[at] = int(pa.scalar(text).cast(kind).cast(pa.int64()).as_py())
            except pa.ArrowInvalid:
                bad[at] = True
        return out, bad
