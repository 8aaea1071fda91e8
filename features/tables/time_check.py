"""The times of a log, checked against the calendar over the whole column.

Only the column as a whole distinguishes milliseconds declared as seconds from a single bad row, or
shows that two units are mixed, or that some of its times have a zone and others have none.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.features.tables.ledger import Cells, Ledger, Mask, Tally
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import (
    NULL_TIME,
    SAID,
    UNITS,
    Raw,
    RawTimes,
    TimeForm,
    TimeUnit,
    is_plausible,
    microseconds,
    read_times,
)


class TimeCheck:
    """Checks the times of a log batch by batch; checks of the whole column come at the end.

    Whether a row stays shows at once. Whether times that are out of range are single bad rows,
    or the declared unit is wrong, only the whole column shows: until `finish` they are counted.
    """

    def __init__(self, column: str, form: TimeForm, policies: Policies, latest: float) -> None:
        """Get ready; `latest`, in seconds since 1970: what is later is in the future."""
        self._column, self._form, self._latest = column, form, latest
        self._unit = form.unit
        self._ticks = UNITS["us" if form.unit == "datetime" else form.unit]
        self._policies = policies
        self._num_good = 0
        self._faults: dict[str, Tally] = {}
        self._units: dict[str, Tally] = {}
        self._naive = Tally()
        self._num_zoned = 0

    def check(self, cells: Cells) -> tuple[NDArray[np.int64], Mask]:
        """Return a batch of times, (N,) int64 microseconds, and which are usable, (N,) bool.

        Raises:
            DataError: the column's type does not go with the unit.
        """
        read, latest = read_times(cells, self._form), self._latest
        raw = read.values
        known = raw != NULL_TIME
        negative = known & (raw < 0)
        rest = known & ~negative
        good = rest & is_plausible(raw, self._ticks, latest)
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
                    mask = odd & is_plausible(raw, ticks, latest)
                    self._count(self._units, unit, mask, raw, cells.rows)
        self._count_zones(read, known, cells.rows)
        return microseconds(np.where(good, raw, 0), self._unit), good

    def finish(self, ledger: Ledger) -> None:
        """Note what was found in all batches."""
        self._note_unit(ledger)
        self._note_zones(ledger)
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

    def told(self) -> dict[str, Any]:
        """Return what was found so far as plain values."""
        return {
            "good": self._num_good,
            "zoned": self._num_zoned,
            "naive": asdict(self._naive),
            "faults": {name: asdict(one) for name, one in self._faults.items()},
            "units": {name: asdict(one) for name, one in self._units.items()},
        }

    def join(self, told: Mapping[str, Any]) -> None:
        """Add what another check told of later rows of the same column."""
        self._num_good += told["good"]
        self._num_zoned += told["zoned"]
        self._naive.join(Tally(**told["naive"]))
        for own, theirs in ((self._faults, told["faults"]), (self._units, told["units"])):
            for name, one in theirs.items():
                own.setdefault(name, Tally()).join(Tally(**one))

    def _count(
        self,
        tallies: dict[str, Tally],
        name: str,
        mask: Mask,
        raw: Raw,
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

    def _count_zones(self, read: RawTimes, known: Mask, rows: NDArray[np.int64]) -> None:
        if read.zoned is not None:
            self._num_zoned += int((known & read.zoned).sum())
            self._naive.add(rows[known & ~read.zoned])

    def _note_zones(self, ledger: Ledger) -> None:
        """Say where some times have a zone and others none."""
        if self._num_zoned and self._naive.count:
            reason = (
                f"no zone, where {self._num_zoned:,} other rows have one: read as UTC "
                "(interactions.time.zone says another)"
            )
            ledger.note_tally(self._column, reason, self._naive, rule=SAID)

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


def _shown(value: int, unit: TimeUnit) -> str:
    try:
        ticks = UNITS["us" if unit == "datetime" else unit]
        when = datetime.fromtimestamp(value / ticks, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(value)
    return when if unit == "datetime" else f"{value} ({when})"
