"""Splits of a log into training, validation and test rows.

Nothing that training sees may depend on a later row: the global time split cuts the log at
two instants; leave-one-out holds out each user's last two rows (the published protocols);
a given column is taken at its word.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from recsys.errors import ConfigError, DataError
from recsys.strict import StrictModel

Share = Annotated[float, Field(gt=0, lt=1)]


class SplitConfig(StrictModel):
    """How rows are parted.

    `time`: the latest `test` share of the rows is test, the `validation` share before it
    validation (or give the two instants, ISO). `leave_one_out`: by time or order within a user.
    `column`: the text in `column` is train, validation (or valid, val) or test.
    """

    kind: Literal["time", "leave_one_out", "column"] = "time"
    validation: Share = 0.1
    test: Share = 0.1
    validation_from: str | None = None
    test_from: str | None = None
    column: str | None = None

    @model_validator(mode="after")
    def _matches(self) -> Self:
        if (self.kind == "column") != (self.column is not None):
            raise ValueError("split.column goes with split.kind: column")
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("give both validation_from and test_from, or neither")
        if self.validation + self.test >= 1:
            raise ValueError("validation and test shares leave no training rows")
        return self


TRAIN, VALIDATION, TEST = 0, 1, 2


def assign(
    config: SplitConfig,
    user_row: NDArray[np.int32],
    time: NDArray[np.int64],
    given: NDArray[np.int8] | None,
) -> NDArray[np.int8]:
    """Return the part of each event, (E,) int8: 0 train, 1 validation, 2 test.

    Args:
        config: how to part them.
        user_row: (E,) sorted; events of a user are in their order in time.
        time: (E,) microseconds or order values.
        given: (E,) the parts of a split column, for `kind: column`.

    Raises:
        DataError: a part that training and evaluation need would be empty.
    """
    if config.kind == "column":
        assert given is not None
        part = given
    elif config.kind == "leave_one_out":
        part = _leave_one_out(user_row)
    else:
        part = _by_time(config, time)
    counts = np.bincount(part, minlength=3)
    if counts[TRAIN] == 0 or counts[TEST] == 0:
        raise DataError(
            f"split {config.kind}: {counts[TRAIN]} training, {counts[VALIDATION]} validation and "
            f"{counts[TEST]} test rows; change the section 'split' so that none is empty"
        )
    return part


def _by_time(config: SplitConfig, time: NDArray[np.int64]) -> NDArray[np.int8]:
    """Cut at two instants; rows of one instant stay together, in the later part."""
    if config.validation_from and config.test_from:
        cuts = [_microseconds(config.validation_from), _microseconds(config.test_from)]
        if cuts[0] >= cuts[1]:
            raise ConfigError("split: validation_from must come before test_from")
    else:
        shares = (1 - config.validation - config.test, 1 - config.test)
        ranks = [min(round(share * len(time)), len(time) - 1) for share in shares]
        cuts = np.partition(time, ranks)[ranks].tolist()
    return np.searchsorted(np.array(cuts), time, side="right").astype(np.int8)


def _leave_one_out(user_row: NDArray[np.int32]) -> NDArray[np.int8]:
    """The last event of a user is test, the one before validation; users of one or two: train."""
    num_events = len(user_row)
    last = np.searchsorted(user_row, user_row, side="right") - 1
    from_end = last - np.arange(num_events)
    length = last + 1 - np.searchsorted(user_row, user_row, side="left")
    part = np.zeros(num_events, np.int8)
    part[(from_end == 1) & (length >= 3)] = VALIDATION
    part[(from_end == 0) & (length >= 3)] = TEST
    return part


def _microseconds(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"split: '{text}' is not an ISO date or time") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return int(instant.timestamp() * 1_000_000)
