"""From configuration to everything that training and evaluation read.

`prepare` reads the tables, parts the log, fits the encoder on the training rows alone and
encodes every side once.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.codes import counts_of
from recsys.core.errors import ConfigError, DataError, Row
from recsys.data.batch import FeatureBlock
from recsys.features.dataset.histories import Histories
from recsys.features.dataset.split import (
    PART_NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    SplitConfig,
    assign,
    drawn_cold,
    has_validation,
    released_from,
    words_of_drawn,
)
from recsys.features.encoding.encoder import FeatureEncoder, Side
from recsys.features.encoding.hashing import hash_values, splitmix64
from recsys.features.encoding.history_features import past_scalers
from recsys.features.encoding.label_features import TrainingLabels
from recsys.features.encoding.multiplicity import settle
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables, read_tables, without_undone
from recsys.features.tables.ledger import Drop
from recsys.features.tables.log import take_rows
from recsys.features.tables.sources import Policies, Sources
from recsys.features.tables.undone import NEVER

_NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Dataset:
    """Tables, their parts, and their encoded rows.

    part (E,) int8, the part of each event; items, users and context: encoded rows of the
    catalogue, of the users and of the events, in the order of `tables`. cold (num_items,) bool,
    the items that `split.cold_items` names.
    """

    schema: Schema
    tables: Tables
    part: NDArray[np.int8]
    encoder: FeatureEncoder
    items: FeatureBlock
    users: FeatureBlock
    context: FeatureBlock
    cold: NDArray[np.bool_]

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return self.tables.items.num_rows

    @property
    def num_users(self) -> int:
        """Number of users, those without an event among them."""
        return self.tables.users.num_rows

    @cached_property
    def train_counts(self) -> NDArray[np.int64]:
        """Training rows of each item, (num_items,)."""
        rows = self.tables.events.item_row[self.part == TRAIN]
        return np.bincount(rows, minlength=self.num_items)

    def events_of(self, parts: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the numbers of the events in `parts`, ascending."""
        return np.flatnonzero(self.is_in(parts))

    def is_in(self, parts: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return which events are in one of `parts`, (E,)."""
        found = np.zeros(len(self.part), bool)
        for one in parts:
            found |= self.part == one
        return found

    def targets_of(self, parts: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the numbers of the events in `parts` that are asked for, ascending."""
        chosen, target = self.events_of(parts), self.tables.events.target
        return chosen if target is None else chosen[target[chosen]]

    def training_labels(self) -> TrainingLabels:
        """Return what the training rows say of each other, for the features of labels."""
        return TrainingLabels(
            self.schema.label_features,
            self.encoder.columns_layout(),
            self.tables.events,
            self.events_of((TRAIN,)),
            (self.users, self.context, self.items),
            has_time=self.schema.interactions.time is not None,
        )

    def histories(self, parts: tuple[int, ...]) -> Histories:
        """Return each user's events in `parts`, in order."""
        return self.histories_of(self.events_of(parts))

    def asked(self, parts: tuple[int, ...]) -> Histories:
        """Return each user's events in `parts` that are asked for, in order."""
        return self.histories_of(self.targets_of(parts))

    def had(self, parts: tuple[int, ...]) -> Histories:
        """Return each user's events in `parts` whose items they have had, in order."""
        chosen = self.events_of(parts)
        return self.histories_of(chosen[are_had(self.schema, self.tables.events)[chosen]])

    def histories_of(self, chosen: NDArray[np.int64]) -> Histories:
        """Return each user's events among `chosen` (M,), ascending."""
        events = self.tables.events
        return Histories.build(
            events.user_row[chosen], events.item_row[chosen], events.time[chosen], self.num_users
        )


def are_had(schema: Schema, events: Events) -> NDArray[np.bool_]:
    """Return whether an event says that its user has had the item, (E,) bool.

    All do where `interactions.events.seen` does not name types.
    """
    role = schema.interactions.events
    if role is None or not role.seen or events.type is None:
        return np.ones(len(events), bool)
    return np.array([name in role.seen for name in role.names])[events.type]


def prepare(
    schema: Schema,
    sources: Sources,
    policies: Policies,
    split: SplitConfig,
    lookups: int | None = None,
) -> Dataset:
    """Read, part, fit and encode; `lookups` is for `multiplicity: auto`.

    Raises:
        DataError: a row, a column or a whole table is not as declared.
        NotFoundError: a path does not exist.
    """
    tables = read_tables(schema, sources, policies, split_column=split.column, to_part=True)
    tables, part, cold = parted(schema, tables, split)
    encoder = fit_encoder(schema, tables, part, lookups)
    return remembering(encoded(encoder.schema, tables, part, encoder, cold))


def encoded(
    schema: Schema,
    tables: Tables,
    part: NDArray[np.int8],
    encoder: FeatureEncoder,
    cold: NDArray[np.bool_] | None = None,
) -> Dataset:
    """Return the data set of `tables` as `encoder` sees it; no item is cold without `cold`."""
    return Dataset(
        schema=schema,
        tables=tables,
        part=part,
        encoder=encoder,
        items=encoder.encode("items", tables.items),
        users=encoder.encode("users", tables.users),
        context=encoder.encode("interactions", tables.events.context),
        cold=np.zeros(tables.items.num_rows, bool) if cold is None else cold,
    )


def continued(data: Dataset, earlier: FeatureEncoder | None) -> Dataset:
    """Return the data set as its encoder sees it with the scales and known ids of `earlier`."""
    if earlier is None:
        return data
    encoder = data.encoder.continuing(earlier)
    return remembering(encoded(data.schema, data.tables, data.part, encoder, data.cold))


def remembering(data: Dataset) -> Dataset:
    """Return the data set, its encoder with what the labels of its training rows say."""
    if not data.schema.label_features:
        return data
    tables = data.training_labels().tables()
    return replace(data, encoder=replace(data.encoder, label_tables=tables))


def parted(
    schema: Schema, tables: Tables, split: SplitConfig
) -> tuple[Tables, NDArray[np.int8], NDArray[np.bool_]]:
    """Return the tables that are left, the part of each event, and which items are cold.

    The log is parted first, so cold items move no other row into another part. Where they are
    `removed`, their training and validation rows leave the log, and a drop counts them.

    Raises:
        ConfigError: `split.cold_items.from` without a time.
        DataError: no item is cold, or no training row is left; a part would be empty.
    """
    tables, part = _settled(schema, tables, split)
    _check_targets(split, tables.events, part)
    config = split.cold
    if config is None:
        return tables, part, np.zeros(tables.items.num_rows, bool)
    events = tables.events
    if config.from_ is None:
        cold = drawn_cold(config, tables.items.column(schema.item_key))
    elif schema.interactions.time is None:
        raise ConfigError("split.cold_items.from needs schema.interactions.time; set share instead")
    else:
        cold = released_from(config.from_, events.item_row, events.time, tables.items.num_rows)
    if not cold.any():
        raise DataError(
            f"split.cold_items: none of {len(cold):,} items is cold",
            remedy="choose a larger share, or an earlier instant",
        )
    gone = cold[events.item_row] & (part < TEST)
    if not config.removed or not gone.any():
        return tables, part, cold
    if gone[part == TRAIN].all():
        raise DataError(
            f"split.cold_items: {int(cold.sum()):,} of {len(cold):,} items are cold, and no "
            "training row is left",
            remedy="choose a smaller share, or a later instant",
        )
    drop = Drop(
        table="interactions",
        column=schema.interactions.item,
        reason="a training or validation row of a cold item",
        rule="split.cold_items",
        choice=f"{int(cold.sum()):,} items",
        rows=int(gone.sum()),
        examples=tuple(Row("", int(row) + 1) for row in np.sort(events.row[gone])[:5]),
    )
    left = replace(tables, events=events.take(np.flatnonzero(~gone)), drops=(*tables.drops, drop))
    return left, part[~gone], cold


def _settled(schema: Schema, tables: Tables, split: SplitConfig) -> tuple[Tables, NDArray[np.int8]]:
    """Return the tables without rows that were taken back, and the part of each event.

    Of a split by time a row stays where it was taken back in a later part than its own.
    """
    if split.kind != "time":
        tables = without_undone(schema, tables)
    part, events = part_of(schema, tables, split), tables.events
    if events.undone is None:
        return tables, part
    starts = [int(events.time[part == one].min(initial=NEVER)) for one in (VALIDATION, TEST)]
    gone = events.undone != NEVER
    begins = np.minimum.accumulate(starts[::-1])[::-1]  # a part may be empty
    gone &= np.searchsorted(begins, events.undone, side="right") <= part
    return without_undone(schema, tables, gone), part[~gone]


def _check_targets(split: SplitConfig, events: Events, part: NDArray[np.int8]) -> None:
    """Refuse a part of which nothing is asked for.

    Raises:
        DataError: there is one.
    """
    if events.target is None:
        return
    counts = np.bincount(part[events.target], minlength=3)
    needed = [one for one in split.parts if not (one == VALIDATION and split.trains_on_validation)]
    for one in needed:
        if not counts[one]:
            raise DataError(
                f"split {split.kind}: no {PART_NAMES[one]} row is a target "
                f"({counts[TRAIN]:,} training, {counts[VALIDATION]:,} validation and "
                f"{counts[TEST]:,} test rows are)",
                remedy="change interactions.targets, or the section 'split'",
            )


def part_of(schema: Schema, tables: Tables, split: SplitConfig) -> NDArray[np.int8]:
    """Return the part of each event, (E,) int8."""
    events = tables.events
    drawn = drawn_validation(schema, tables, split) is not None
    pair_hash = _pair_hash(schema, tables) if drawn and not _is_in_order(schema) else None
    return assign(split, events.user_row, events.time, events.split, pair_hash, events.target)


def drawn_validation(schema: Schema, tables: Tables, split: SplitConfig) -> str | None:
    """Describe what is validation where the split column names none; None where it does."""
    given = tables.events.split
    if split.kind != "column" or given is None or has_validation(given):
        return None
    return words_of_drawn(split, in_order=_is_in_order(schema))


def _is_in_order(schema: Schema) -> bool:
    return schema.interactions.time is not None or schema.interactions.order is not None


def _pair_hash(schema: Schema, tables: Tables) -> NDArray[np.uint64]:
    """Return a hash of the ids of each event's user and item, (E,): more rows do not change it."""
    events = tables.events
    users = hash_values(tables.users.column(schema.user_key)).view(np.uint64)
    items = hash_values(tables.items.column(schema.item_key)).view(np.uint64)
    return splitmix64(splitmix64(users)[events.user_row] ^ items[events.item_row])


def fit_encoder(
    schema: Schema, tables: Tables, part: NDArray[np.int8], lookups: int | None = None
) -> FeatureEncoder:
    """Fit on the training rows: their items, their users, their context, their last instant.

    The encoder's schema has every `multiplicity: auto` settled.
    """
    events = tables.events
    is_trained = part == TRAIN
    items, of_items = _counted(events.item_row, is_trained, tables.items.num_rows)
    users, of_users = _counted(events.user_row, is_trained, tables.users.num_rows)
    needs_rows = events.context.num_columns > 0 or bool(schema.derived_features)
    rows = np.flatnonzero(is_trained) if needs_rows else np.zeros(0, np.int64)
    fitted: dict[Side, pa.Table] = {
        "items": tables.items.take(pa.array(items)),
        "users": tables.users.take(pa.array(users)),
        "interactions": take_rows(events.context, rows),
    }
    times: dict[Side, NDArray[np.int64]] = {"items": of_items, "users": of_users}
    has_clock = schema.interactions.time is not None
    reference = int(events.time.max(where=is_trained, initial=_NO_TIME)) if has_clock else 0
    encoder = FeatureEncoder.fit(schema, fitted, reference_time=reference, times=times)
    return replace(
        encoder,
        schema=settle(schema, fitted, lookups, encoder.known),
        scalers={**encoder.scalers, **past_scalers(schema.derived_features, events, rows)},
    )


def _counted(
    codes: NDArray[np.int32], chosen: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct codes (E,) below `size` of the chosen ones, ascending, and how often."""
    counts = counts_of(codes, size, chosen)
    found = np.flatnonzero(counts)
    return found, counts[found]
