"""A point in time: when an item was released, when a user joined."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from recsys.data.batch import FeatureLayout
from recsys.data.feature_options import Multiplicity
from recsys.features.encoding.hashing import NULL_HASH, hash_values
from recsys.features.encoding.instants import Times, as_microseconds
from recsys.features.encoding.scaling import Scaler
from recsys.features.encoding.scaling_expression import scaled
from recsys.features.kinds.expression import Expressed, Operations
from recsys.features.kinds.feature import Encoded, Feature, Fit, Fitted, Integers, is_nan
from recsys.features.kinds.sparse import settled
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import has_word
from recsys.features.propose.time_columns import time_guess
from recsys.features.propose.time_texts import odd_rows
from recsys.features.tables.ledger import Cells
from recsys.features.tables.sources import Policies
from recsys.features.tables.times import (
    NULL_TIME,
    UNITS,
    TimeForm,
    TimeUnit,
    check_form,
    guess_unit,
    latest_seconds,
    raw_times,
    with_unit,
)

_HOUR, _DAY = 3_600_000_000, 86_400_000_000  # microseconds
_HOURS, _WEEKDAYS = 24, 7
_TIME_WORDS = {
    "time", "timestamp", "ts", "date", "datetime", "created", "released", "since", "joined",
    "registered", "signup", "updated", "published", "launched",
}  # fmt: skip


class TimestampFeature(Feature):
    """A point in time as hour of day, weekday (sparse) and age in days (dense)."""

    kind: Literal["timestamp"] = "timestamp"
    unit: TimeUnit
    """Unit of numbers since 1970 (UTC), or `datetime`; with `format` or `zone` it is `datetime`."""
    format: str | None = None
    """Form of text other than ISO 8601, in the codes of strptime: `"%d.%m.%Y %H:%M"`."""
    zone: str | None = None
    """Zone of times that do not say theirs, as in `Europe/Berlin`; None: UTC."""
    multiplicity: Multiplicity = 1
    """Rows of the table that a value reads; `auto`: by the number of its values."""

    priority: ClassVar[int] = 4
    is_scaled: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _with_unit(cls, given: Any) -> Any:
        return with_unit(given)

    @model_validator(mode="after")
    def _is_readable(self) -> Self:
        check_form(TimeForm(self.unit, self.format, self.zone))
        return self

    @property
    def lookup_names(self) -> tuple[str, ...]:
        """Hour and weekday."""
        return f"{self.name}.hour", f"{self.name}.weekday"

    @property
    def asked_multiplicity(self) -> Multiplicity:
        """As declared, of hour and weekday each."""
        return self.multiplicity

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return whole numbers in its unit, or UTC timestamps."""
        times = raw_times(cells, TimeForm(self.unit, self.format, self.zone))
        raw = np.floor(times).astype(np.int64)  # of features no fraction of the unit counts
        null = raw == NULL_TIME
        known = raw[~null]
        if self.unit != "datetime" and len(known):
            latest = latest_seconds(Policies())
            looks = guess_unit(known, latest)
            # Few points in time are before 1990 in one unit and after it in another.
            if looks is not None and UNITS[looks] != UNITS[self.unit]:
                cells.refuse(
                    f"declared in {self.unit}, but the values are plausible as {looks}",
                    f"set the feature's unit to {looks}",
                )
        values = pa.array(raw, mask=null)
        return values.cast(pa.timestamp("us", tz="UTC")) if self.unit == "datetime" else values

    def fit(self, columns: Sequence[pa.ChunkedArray], reference_time: int) -> Fit:
        """Return the scale of its age."""
        age = _age(as_microseconds(columns[0], self.unit), reference_time)
        return Fit(scalers={self.name: Scaler.fit("log1p", age)})

    def layout(self, fitted: Fitted) -> FeatureLayout:
        """Hour and weekday, each a feature, and the age with whether it is null."""
        multiplicity = settled(self.multiplicity)
        single = tuple((name, multiplicity) for name in self.lookup_names)
        return FeatureLayout(single, (), (f"{self.name}.age", f"{self.name}.null"))

    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return the hashes of hour and weekday, and the scaled age in days."""
        times = as_microseconds(columns[0], self.unit)
        age = _age(times, fitted.reference_time)
        return Encoded(
            single=_clock(times), dense=[fitted.scalers[self.name].apply(age), is_nan(age)]
        )

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """The hashes of hour and weekday, and the scaled age in days."""
        times, null = ops.instant(self.source_column, self.unit)
        hour, weekday = times // _HOUR % _HOURS, (times // _DAY + 4) % _WEEKDAYS
        clock = [ops.where(null, int(NULL_HASH), ops.hashed(part)) for part in (hour, weekday)]
        since = ops.float64(times * -1 + fitted.reference_time) / float(_DAY)
        age = scaled(ops, fitted.scalers[self.name], ops.where(null, math.nan, since))
        return Expressed(single=clock, dense=[age, ops.float32(null)])

    def num_values(self, lookup: str, column: pa.ChunkedArray) -> int:
        """Return the hours of a day, or the days of a week."""
        return _HOURS if lookup.endswith(".hour") else _WEEKDAYS

    def values_to_share_rows(self, column: pa.ChunkedArray) -> int:
        """Hours and weekdays are few: one row each distinguishes them."""
        return 1

    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """A time, or a whole number."""
        kind = pa.timestamp("us") if self.unit == "datetime" else pa.int64()
        return {self.source_column: kind}

    @classmethod
    def propose(cls, column: ColumnProfile, look: Look) -> Suggestion | None:
        """Times, ISO text, and whole numbers that are plausible as times."""
        if column.type not in ("time", "string", "integer", "float"):
            return None
        guess = time_guess(column, look.latest)
        named = has_word(column.name, _TIME_WORDS)
        # Few numbers but times are in the narrow window of milliseconds since 1990.
        if guess is None or (guess.unit == "s" and not named):
            return _not_a_category(column) if guess is None else None
        values = _HOURS + _WEEKDAYS
        return Suggestion("timestamp", guess.options, "", values, unsure=guess.doubt)


def _not_a_category(column: ColumnProfile) -> Suggestion | None:
    """Leave out, and say so, a column of texts most of which are times; None: it is none."""
    odd = odd_rows(column.values) if column.type == "string" else None
    if odd is None:
        return None
    said = (
        f"'{column.name}' looks like a time of the form '{odd[0]}' ({odd[2]}), but {odd[1]!r} is "
        "of another: it is no feature"
    )
    return Suggestion("", {}, "a time, but of several forms", unsure=said)


def _age(times: Times, reference_time: int) -> NDArray[np.float64]:
    """Return days before the reference, (N,); NaN where null."""
    return np.where(times.valid, (reference_time - times.values) / _DAY, np.nan)


def _clock(times: Times) -> list[Integers]:
    hour = times.values // _HOUR % _HOURS
    weekday = (times.values // _DAY + 4) % _WEEKDAYS  # 1970-01-01 was a Thursday; 0 is Sunday
    return [
        np.where(times.valid, hash_values(pa.array(part)), NULL_HASH) for part in (hour, weekday)
    ]
