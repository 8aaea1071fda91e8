"""Times of a log: one unit, checked against the calendar over the whole column.

A clock column is kept as it came (whole numbers in its unit; microseconds for `datetime`) until
every row is known: only the column as a whole distinguishes milliseconds declared as seconds
from a single bad row, or shows that two units are mixed.
"""

from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.tables.ledger import Cells, Ledger, Mask, Tally, is_list, is_text, mask_of
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
    """Return the unit in which nearly all of `values` are between 1990 and `latest` (seconds)."""
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


class TimeCheck:
    """Checks the times of a log batch by batch; checks of the whole column come at the end.

    Whether a row stays shows at once. Whether times that are out of range are single bad rows,
    or the declared unit is wrong, only the whole column shows: until `finish` they are counted.
    """

    def __init__(self, column: str, unit: TimeUnit, policies: Policies, latest: float) -> None:
        """Get ready; `latest`, in seconds since 1970: what is later is in the future."""
        self._column, self._unit, self._latest = column, unit, latest
        self._ticks = UNITS["us" if unit == "datetime" else unit]
        self._policies = policies
        self._num_good = 0
        self._faults: dict[str, Tally] = {}
        self._units: dict[str, Tally] = {}

    def check(self, cells: Cells) -> tuple[NDArray[np.int64], Mask]:
        """Return a batch of raw times, (N,) int64, and which of them are usable, (N,) bool.

        Raises:
            DataError: the column's type does not go with the unit.
        """
        raw, latest = raw_times(cells, self._unit), self._latest
        known = raw != NULL_TIME
        negative = known & (raw < 0)
        rest = known & ~negative
        good = rest & _plausible(raw, self._ticks, latest)
        self._num_good += int(good.sum())
        odd = rest & ~good
        future = odd & (raw > latest * self._ticks)
        for fault, mask in (
            ("null", ~known),
            ("negative", negative),
            ("future", future),
            ("early", odd & ~future),
        ):
            self._count(self._faults, fault, mask, raw, cells.rows)
        if self._unit != "datetime" and odd.any():
            for unit, ticks in UNITS.items():
                if unit != self._unit:
                    mask = odd & _plausible(raw, ticks, latest)
                    self._count(self._units, unit, mask, raw, cells.rows)
        return raw, good

    def finish(self, ledger: Ledger) -> None:
        """Note what was found in all batches."""
        self._note_unit(ledger)
        drop = "drop to leave such rows out"
        correct = "correct the source"
        when = datetime.fromtimestamp(self._latest, UTC).isoformat(timespec="seconds")
        words = {
            "null": ("the time is null", correct, drop),
            "negative": ("the time is negative", correct, drop),
            "future": (
                f"the time is in the future (after {when})",
                correct,
                f"{drop}; see policies.latest_time",
            ),
            "early": (
                "the time is before 1990",
                "if these are not times but an order, declare interactions.order; if they are "
                f"times, the unit '{self._unit}' is wrong or the rows are "
                "(policies.bad_times: drop)",
                "",
            ),
        }
        for fault, (reason, remedy, option) in words.items():
            tally = self._faults.get(fault, Tally())
            rule = self._policies.rule("bad_times", option)
            ledger.note_tally(self._column, reason, tally, remedy=remedy, rule=rule)

    def _count(
        self,
        tallies: dict[str, Tally],
        name: str,
        mask: Mask,
        raw: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        at = np.flatnonzero(mask)
        if len(at) == 0:
            return
        if name not in tallies:
            first = int(raw[at[0]])
            plain = tallies is self._units
            known = str(first) if plain else _shown(first, self._unit)
            tallies[name] = Tally("" if first == NULL_TIME else known)
        tallies[name].add(rows[at])

    def _note_unit(self, ledger: Ledger) -> None:
        """Note, beyond any policy, times that make sense in another unit than the declared one."""
        if not self._units:
            return
        best = max(
            (other for other in UNITS if other in self._units),
            key=lambda other: self._units[other].count,
        )
        tally = self._units[best]
        if self._num_good:
            reason = (
                f"times in mixed units: {self._num_good:,} rows are plausible as {self._unit} "
                f"(declared), {tally.count:,} as {best}"
            )
            remedy = "bring the column to one unit in the source"
        else:
            reason = f"declared as {self._unit}, but the times are between 1990 and now as {best}"
            remedy = f"set the unit to {best}"
        ledger.note_tally(self._column, reason, tally, remedy=remedy)


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
