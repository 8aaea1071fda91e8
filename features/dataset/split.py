"""Splits of a log into training, validation and test rows.

Nothing that training sees may depend on a later row: the global time split cuts the log at
two instants; leave-one-out holds out each user's last two rows (the published protocols);
a given column is used as it is. A column that knows no validation rows gets them from its
training rows, user by user: the latest, or where the log has no order, by a hash of the pair.

Cold items have no training row, so that a test shows what a model makes of items that are new.

A last training, with settings that were chosen before, needs no test rows (`test: 0`), or holds out
nothing at all (`kind: none`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from recsys.core.codes import counts_of, value_at_ranks
from recsys.core.errors import ConfigError, DataError
from recsys.core.strict import StrictModel
from recsys.features.encoding.hashing import hash_values, splitmix64

Share = Annotated[float, Field(gt=0, lt=1)]


class ColdItemsConfig(StrictModel):
    """Which items are cold: a `share` of the catalogue, or those released from an instant on.

    share: drawn by a hash of `seed` and the item's id, so that no other row changes the choice.
    from: ISO; items whose first row is at or after it. removed: their training and validation rows
    are left out; else nothing is, and the items are only marked.
    """

    share: Share | None = None
    """Share of the catalogue that is cold."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the choice."""
    from_: str | None = Field(default=None, alias="from")
    """ISO time; items whose first row is at or after it are cold."""
    removed: bool = True
    """Leave the training and validation rows of cold items out; false: only report them apart."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.share is None) == (self.from_ is None):
            raise ValueError("split.cold_items needs 'share' or 'from', and not both")
        if self.from_ is not None and self.seed:
            raise ValueError(
                "seed is of the share that is drawn, and 'from' draws nothing: leave seed "
                "out, or give share"
            )
        return self


class SplitConfig(StrictModel):
    """How rows are parted.

    `time`: the latest `test` share of the rows is test, the `validation` share before it
    validation (or give the two instants, ISO). `leave_one_out`: by time or order within a user.
    `column`: the text in `column` is train, validation (or valid, val) or test; where no row is
    validation, the `validation` share of each user's training rows is drawn for it. `none`: all
    rows are training rows. With `test: 0` no row is test, and the latest rows are validation.
    """

    kind: Literal["time", "leave_one_out", "column", "none"] = "time"
    """`time`: the latest rows are test, those before them validation; `leave_one_out`: each user's
    last row is test, the one before it validation; `column`: as a column says; `none`: all rows are
    training rows, and nothing is measured."""
    validation: Share = 0.1
    """Share of validation rows."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of test rows. 0, for each kind of split: there is no test part, and the finished model
    is evaluated on the validation rows."""
    validation_from: str | None = None
    """ISO time at which the validation part begins, in place of a share."""
    test_from: str | None = None
    """ISO time at which the test part begins."""
    column: str | None = None
    """Column of `train`, `validation` and `test`."""

    @model_validator(mode="after")
    def _matches(self) -> Self:
        if (self.kind == "column") != (self.column is not None):
            raise ValueError("split.column goes with split.kind: column")
        has_test = self.test > 0
        if not has_test and self.test_from is not None:
            raise ValueError("test_from is where the test part begins, and test: 0 leaves none")
        if has_test and (self.validation_from is None) != (self.test_from is None):
            raise ValueError(
                "give both validation_from and test_from, or neither; with test: 0 give "
                "validation_from alone"
            )
        if self.validation + self.test >= 1:
            raise ValueError("validation and test shares leave no training rows")
        for key, why in self._of_no_use():
            no_test = key == "test" and not has_test and self.kind != "none"
            if getattr(self, key) != type(self).model_fields[key].default and not no_test:
                raise ValueError(f"{key} {why}: leave it out")
        return self

    def _of_no_use(self) -> Iterator[tuple[str, str]]:
        """Yield what the kind of split has no use for, and why."""
        if self.kind != "time":
            why = f"is an instant, and split.kind: {self.kind} does not part rows by time"
            yield from (("validation_from", why), ("test_from", why))
        if self.kind == "none":
            why = "is about rows that are held out, and split.kind: none holds out none"
            of_parts = {"validation", "test", "join_validation", "cold_items"}
            yield from ((key, why) for key in type(self).model_fields if key in of_parts)
        if self.kind == "leave_one_out":
            why = "is a share of the rows, and split.kind: leave_one_out holds out one row a user"
            yield from (("validation", why), ("test", why))
        if self.kind == "column":
            yield (
                "test",
                f"is a share of the rows, and the column '{self.column}' says what is test",
            )
        if self.validation_from is not None:
            why = "is a share of the rows, and validation_from and test_from say where they part"
            yield from (("validation", why), ("test", why))

    @property
    def trains_on_validation(self) -> bool:
        """Whether no row is left to stop by, as validation rows are trained on."""
        return self.kind == "none"

    @property
    def evaluated(self) -> int | None:
        """The part that a finished model is evaluated on; None: no row is held out for that."""
        if self.kind != "none" and self.test > 0:
            return TEST
        return None if self.trains_on_validation else VALIDATION

    @property
    def parts(self) -> tuple[int, ...]:
        """The parts that rows go into."""
        if self.kind == "none":
            return (TRAIN,)
        return (TRAIN, VALIDATION, TEST) if self.test > 0 else (TRAIN, VALIDATION)

    @property
    def cold(self) -> ColdItemsConfig | None:
        """Which items have no training row; None: those that happen to have none."""
        return None


class RetrievalSplitConfig(SplitConfig):
    """How the rows of a log of positives are parted, whose items are to be found.

    join_validation: train on the validation rows, too: a last training with settings that were
    chosen on them. Nothing is left to stop by, and the last of `training.epochs` is kept.
    """

    join_validation: bool = False
    """Train on the validation rows as well, with settings chosen before; the last epoch is kept."""
    cold_items: ColdItemsConfig | None = None

    @property
    def trains_on_validation(self) -> bool:
        """Whether no row is left to stop by, as validation rows are trained on."""
        return self.join_validation or super().trains_on_validation

    @property
    def cold(self) -> ColdItemsConfig | None:
        """Which items have no training row; None: those that happen to have none."""
        return self.cold_items


TRAIN, VALIDATION, TEST = 0, 1, 2
PART_NAMES = ("training", "validation", "test")
LEAST_ROWS = 3
"""A user with fewer rows keeps them all for training."""


def assign(
    config: SplitConfig,
    user_row: NDArray[np.int32],
    time: NDArray[np.int64],
    given: NDArray[np.int8] | None,
    pair_hash: NDArray[np.uint64] | None = None,
    target: NDArray[np.bool_] | None = None,
) -> NDArray[np.int8]:
    """Return the part of each event, (E,) int8: 0 train, 1 validation, 2 test.

    Args:
        config: how to part them.
        user_row: (E,) sorted; events of a user are in their order in time.
        time: (E,) microseconds or order values.
        given: (E,) the parts of a split column, for `kind: column`.
        pair_hash: (E,) a hash of user and item, evenly spread; None: the events are in an order
            that means something. Decides which training rows become validation where a split
            column has none.
        target: (E,) which events are asked for; None: all. Those that leave-one-out holds out.

    Raises:
        DataError: a part that training and evaluation need would be empty.
    """
    if config.kind == "none":
        part = np.full(len(user_row), TRAIN, np.int8)
    elif config.kind == "column":
        assert given is not None
        part = given if has_validation(given) else _drawn(config, user_row, given, pair_hash)
    elif config.kind == "leave_one_out":
        part = _leave_one_out(config, user_row, target)
    else:
        part = _by_time(config, time)
    is_one_time = config.kind == "time" and time.min() == time.max()
    check_counts(config, counts_of(part, 3), "all rows have the same time" if is_one_time else "")
    if config.trains_on_validation:
        part = np.where(part == VALIDATION, np.int8(TRAIN), part)
    return part


def check_counts(config: SplitConfig, counts: NDArray[np.int64], why: str = "") -> None:
    """Refuse numbers of training, validation and test rows that are not those of the split.

    why: why a part may be empty, for the message.

    Raises:
        DataError: a part that training and evaluation need is empty, or there are test rows and
            the split has no test part.
    """
    found = (
        f"split {config.kind}: {counts[TRAIN]} training, {counts[VALIDATION]} validation and "
        f"{counts[TEST]} test rows"
    )
    if counts[TEST] and TEST not in config.parts:
        raise DataError(
            f"{found}, and split.test: 0 says that there are none",
            remedy="leave split.test out, or the test rows",
        )
    if counts[TRAIN] and counts[config.parts[-1]]:
        return
    remedy = "change the section 'split' so that none is empty"
    if config.kind == "column" and not counts[TEST]:
        remedy += "; split.test: 0 trains without a test part"
    raise DataError(found + (f" ({why})" if why else ""), remedy=remedy)


def has_validation(given: NDArray[np.int8]) -> bool:
    """Whether a split column has validation rows."""
    return bool((given == VALIDATION).any())


def words_of_drawn(config: SplitConfig, *, in_order: bool) -> str:
    """Describe which training rows become validation where a split column has none."""
    share = f"{config.validation * 100:.3g} %"
    if in_order:
        return f"the last {share} of each user's training rows"
    return f"{share} of each user's training rows, by a hash of user and item"


def _drawn(
    config: SplitConfig,
    user_row: NDArray[np.int32],
    given: NDArray[np.int8],
    pair_hash: NDArray[np.uint64] | None,
) -> NDArray[np.int8]:
    """Turn a share of each user's training rows into validation; of one or two rows none."""
    part = given.copy()
    rows = np.flatnonzero(given == TRAIN)
    from_end, length = _places(user_row[rows])
    if pair_hash is None:
        count = np.clip(np.rint(config.validation * length), 1, length - 1)
        chosen = from_end < count
    else:
        chosen = pair_hash[rows] < np.uint64(config.validation * 2.0**64)
    part[rows[chosen & (length >= LEAST_ROWS)]] = VALIDATION
    return part


def _places(user_row: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many rows of its user come after each row, and how many the user has, (E,)."""
    ends = np.searchsorted(user_row, user_row, side="right")
    starts = np.searchsorted(user_row, user_row, side="left")
    return ends - 1 - np.arange(len(user_row)), ends - starts


def _by_time(config: SplitConfig, time: NDArray[np.int64]) -> NDArray[np.int8]:
    """Cut at two instants, or at one; rows of one instant stay together, in the later part."""
    if config.validation_from:
        instants = [one for one in (config.validation_from, config.test_from) if one]
        cuts = [_microseconds(one) for one in instants]
        if cuts != sorted(set(cuts)):
            raise ConfigError("split: validation_from must come before test_from")
    else:
        shares = [1 - config.validation - config.test, 1 - config.test]
        shares = shares if config.test else shares[:1]
        ranks = [min(round(share * len(time)), len(time) - 1) for share in shares]
        cuts = value_at_ranks(time, ranks)
    part = np.zeros(len(time), np.int8)
    for cut in cuts:
        part += time >= cut
    return part


def _leave_one_out(
    config: SplitConfig, user_row: NDArray[np.int32], target: NDArray[np.bool_] | None
) -> NDArray[np.int8]:
    """The last target of a user is test, the one before validation; users of one or two: train.

    Without a test part the last one is validation. What comes after a target is of its part.
    """
    rows = np.arange(len(user_row)) if target is None else np.flatnonzero(target)
    from_end, length = _places(user_row[rows])
    held_out = (TEST, VALIDATION) if config.test else (VALIDATION,)
    begins = np.zeros(len(user_row), np.int8)
    for place, name in enumerate(held_out):
        begins[rows[(from_end == place) & (length >= LEAST_ROWS)]] = name
    first = np.searchsorted(user_row, user_row, side="left")
    keyed = first * np.int64(3) + begins  # the parts of a user never fall along their rows
    return np.asarray(np.maximum.accumulate(keyed) - 3 * first).astype(np.int8)


def drawn_cold(config: ColdItemsConfig, item_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return the share of the items that is cold, (num_items,) bool."""
    assert config.share is not None
    seed = splitmix64(np.array([config.seed], np.int64).view(np.uint64))
    mixed = splitmix64(hash_values(item_ids).view(np.uint64) ^ seed)
    return np.asarray(mixed < np.uint64(config.share * 2.0**64))


def released_from(
    instant: str, item_row: NDArray[np.int32], time: NDArray[np.int64], num_items: int
) -> NDArray[np.bool_]:
    """Return the items whose first event is at or after `instant` (ISO), (num_items,) bool."""
    never = np.iinfo(np.int64).max
    first = np.full(num_items, never)
    np.minimum.at(first, item_row, time)
    return (first >= _microseconds(instant)) & (first < never)


def _microseconds(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"split: '{text}' is not an ISO date or time") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return int(instant.timestamp() * 1_000_000)
