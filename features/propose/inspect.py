"""What `recsys check` says about the data: counts, gaps, time, the split, and leaks.

Reads nothing: the tables were read and checked already; this looks at what came out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.distinct import distinct, distinct_codes, distinct_counts, is_among
from recsys.features.propose.labels import (
    LABEL,
    LabelledPart,
    label_lines,
    label_warnings,
    labelled_parts,
)
from recsys.features.propose.roles import names_a_rating
from recsys.features.propose.text_grid import grid
from recsys.features.propose.time_doubts import time_doubts
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables
from recsys.features.tables.ledger import Drop, is_list

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a table: its Arrow type, rows without a value, distinct values."""

    table: str
    column: str
    type: str
    nulls: int
    distinct: int


@dataclass(frozen=True)
class PartFacts:
    """One part of the split. Cold: without a training row; spans are ISO times or orders."""

    part: str
    rows: int
    users: int
    items: int
    first: str
    last: str
    cold_item_rows: int
    cold_user_rows: int


@dataclass(frozen=True)
class Report:
    """Everything `recsys check` prints."""

    rows: dict[str, int]
    columns: tuple[ColumnFacts, ...]
    parts: tuple[PartFacts, ...]
    repeated_events: int
    """Rows of a (user, item) pair beyond its first."""
    repeated_across_parts: int
    """Validation and test rows whose (user, item) pair is in an earlier part too."""
    users_without_events: int
    items_without_events: int
    drops: tuple[Drop, ...]
    warnings: tuple[str, ...]
    table_bytes: int | None
    fingerprint: str
    notes: tuple[str, ...] = ()
    """What is well, and good to know."""
    labels: tuple[LabelledPart, ...] = ()
    """Of a log with a label, part by part, and then of each further outcome."""

    def lines(self) -> list[str]:
        """Return the report as text."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.rows.items())
        out = [counts, ""]
        out += grid(
            ("table", "column", "type", "nulls", "distinct"),
            [
                (one.table, one.column, one.type, f"{one.nulls:,}", f"{one.distinct:,}")
                for one in self.columns
            ],
        )
        head = ("part", "rows", "users", "items", "rows of cold items", "of cold users")
        out += ["", *grid(head, [_part_row(one) for one in self.parts])]
        times = [(one.part, one.first, one.last) for one in self.parts]
        out += ["", *grid(("part", "from", "to"), times)]
        out += ["", *label_lines(self.labels)] if self.labels else []
        out += [
            "",
            f"repeats of a user and an item: {self.repeated_events:,} rows; held-out rows whose "
            f"pair was seen before: {self.repeated_across_parts:,}",
            f"without an interaction: {self.items_without_events:,} items, "
            f"{self.users_without_events:,} users",
        ]
        if self.table_bytes is not None:
            size = f"{self.table_bytes / 1e6:,.1f} MB"
            out.append(f"embedding table with its optimizer state: {size}")
        out += [str(drop) for drop in self.drops]
        out += ["", *(f"note: {note}" for note in self.notes)]
        out += [f"warning: {warning}" for warning in self.warnings]
        out.append(f"{'ok' if not self.warnings else 'readable'}: fingerprint {self.fingerprint}")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)


def inspect(
    schema: Schema,
    tables: Tables,
    parts: NDArray[np.int8],
    *,
    table_bytes: int | None,
    notes: Sequence[str] = (),
) -> Report:
    """Describe checked tables.

    Args:
        schema: what the tables are.
        tables: what `read_tables` gave.
        parts: (E,) the part of each event: 0 train, 1 validation, 2 test.
        table_bytes: memory of the embedding table with its optimizer state; None: there is none.
        notes: what is good to know besides.
    """
    events = tables.events
    sources = {"items": tables.items, "users": tables.users, "interactions": events.context}
    columns = [
        _column_facts(name, column, table.column(column))
        for name, table in sources.items()
        for column in table.column_names
    ]
    pairs = events.user_row.astype(np.int64) * tables.items.num_rows + events.item_row
    pairs_there, pair = distinct_codes(pairs)
    across = int(_seen_earlier(pair, parts).sum())
    num_items, num_users = tables.items.num_rows, tables.users.num_rows
    interaction_counts = np.bincount(events.item_row, minlength=num_items)
    outcomes = _outcome_facts(schema, events, parts)
    active = np.bincount(events.user_row, minlength=num_users)
    return Report(
        rows={"interactions": len(events), "items": num_items, "users": num_users},
        columns=tuple(columns),
        parts=tuple(_part_facts(schema, tables, parts)),
        repeated_events=len(pairs) - len(pairs_there),
        repeated_across_parts=across,
        users_without_events=int((active == 0).sum()),
        items_without_events=int((interaction_counts == 0).sum()),
        drops=tables.drops,
        warnings=(
            *_warnings(schema, tables, parts, len(pairs_there), across),
            *time_doubts(schema, tables),
            *(warning for one in outcomes for warning in label_warnings(one)),
        ),
        table_bytes=table_bytes,
        fingerprint=tables.fingerprint,
        notes=tuple(notes),
        labels=tuple(part for one in outcomes for part in one),
    )


def _outcome_facts(
    schema: Schema, events: Events, parts: NDArray[np.int8]
) -> list[tuple[LabelledPart, ...]]:
    """Return the parts of the label and of each further outcome, of a log that has them."""
    if events.label is None:
        return []
    found = [labelled_parts(_PARTS, LABEL, events.label, parts)]
    if events.outcomes is not None:
        names = schema.interactions.outcome_names
        for name, column in zip(names, events.outcomes.T, strict=True):
            found.append(labelled_parts(_PARTS, name, column, parts))
    return found


def _column_facts(table: str, name: str, column: pa.ChunkedArray) -> ColumnFacts:
    kind = column.type
    values = pc.list_flatten(column) if is_list(kind) else column
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
        kind = values.type
    distinct = pc.count_distinct(values.combine_chunks(), mode="only_valid").as_py()
    return ColumnFacts(table, name, str(kind), column.null_count, int(distinct))


def _part_facts(schema: Schema, tables: Tables, parts: NDArray[np.int8]) -> list[PartFacts]:
    events = tables.events
    trained = parts == 0
    known_items = np.zeros(tables.items.num_rows, bool)
    known_users = np.zeros(tables.users.num_rows, bool)
    known_items[events.item_row[trained]] = True
    known_users[events.user_row[trained]] = True
    has_clock = schema.interactions.time is not None
    facts = []
    for number, name in enumerate(_PARTS):
        rows = np.flatnonzero(parts == number)
        items, users, time = events.item_row[rows], events.user_row[rows], events.time[rows]
        facts.append(
            PartFacts(
                part=name,
                rows=len(rows),
                users=len(distinct(users)),
                items=len(distinct(items)),
                first=_instant(time.min(), has_clock) if len(rows) else "",
                last=_instant(time.max(), has_clock) if len(rows) else "",
                cold_item_rows=int((~known_items[items]).sum()),
                cold_user_rows=int((~known_users[users]).sum()),
            )
        )
    return facts


def _warnings(
    schema: Schema, tables: Tables, parts: NDArray[np.int8], num_pairs: int, across: int
) -> list[str]:
    events = tables.events
    found = []
    for feature in schema.features_of("interactions"):
        name = feature.source_column
        if names_a_rating(name):
            found.append(
                f"context feature '{feature.name}' looks like a rating: known only after the item "
                "was rated, it leaks the answer; remove it from the features"
            )
        elif feature.is_category and _determines(events, name, events.item_row):
            found.append(
                f"context feature '{feature.name}' determines the item almost alone: if a "
                "request does not know it beforehand, it leaks the answer"
            )
        elif (
            feature.is_category
            and not feature.has_several
            and _nearly_unique(events, name, num_pairs)
        ):
            found.append(
                f"context feature '{feature.name}' is nearly unique for each user and item: it "
                "cannot be learnt from and may leak the answer"
            )
    early = _starts_before_training_ends(schema, events, parts)
    if early:
        found.append(
            f"{early:,} held-out rows are earlier than the last training row of their user: the "
            "split lets training see the future"
        )
    held_out = int((parts > 0).sum())
    unlabelled = schema.interactions.label is None
    if unlabelled and held_out and across > 0.5 * held_out:
        found.append(
            f"{across / held_out:.0%} of the held-out rows repeat a pair of user and item seen "
            "before: evaluation.filter_seen leaves them out of what counts"
        )
    if held_out and not (parts == 1).any():
        found.append("no validation rows: training cannot determine when to stop")
    return found


def _distinct_codes(events: Events, name: str) -> NDArray[np.int64] | None:
    """Return the column as numbers (N,), -1 for null; None for lists."""
    column = events.context.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if is_list(column.type) or pa.types.is_null(column.type):
        return None
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1)).astype(np.int64)


def _determines(events: Events, name: str, item_row: NDArray[np.int32]) -> bool:
    """Whether a value that comes again nearly always comes with its one item."""
    codes = _distinct_codes(events, name)
    if codes is None or codes.max(initial=-1) < 1:
        return False
    values, items = codes[codes >= 0], item_row[codes >= 0].astype(np.int64)
    num_values, num_items = int(values.max()) + 1, int(items.max()) + 1
    if num_values < 0.5 * len(distinct(items)):
        return False
    pairs, counts = distinct_counts(values * num_items + items)
    most = np.zeros(num_values, np.int64)
    np.maximum.at(most, pairs // num_items, counts)
    total = np.bincount(values, minlength=num_values)
    again = total > 1
    if total[again].sum() < 0.2 * len(codes):
        return False
    return bool(most[again].sum() > 0.95 * total[again].sum())


def _nearly_unique(events: Events, name: str, num_pairs: int) -> bool:
    codes = _distinct_codes(events, name)
    if codes is None:
        return False
    return len(distinct(codes)) > 0.9 * num_pairs


def _seen_earlier(pair: NDArray[np.int64], parts: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return which held-out events repeat a (user, item) pair of an earlier part, (E,)."""
    seen = np.zeros(len(pair), bool)
    for number in (1, 2):
        now = parts == number
        seen[now] = is_among(pair[now], pair[parts < number])
    return seen


def _starts_before_training_ends(schema: Schema, events: Events, parts: NDArray[np.int8]) -> int:
    """Count held-out rows that precede a training row of the same user."""
    roles = schema.interactions
    if (roles.time is None and roles.order is None) or not len(events):
        return 0
    latest = np.full(int(events.user_row.max()) + 1, np.iinfo(np.int64).min)
    train = parts == 0
    np.maximum.at(latest, events.user_row[train], events.time[train])
    return int(((parts > 0) & (events.time < latest[events.user_row])).sum())


def _instant(value: np.int64, has_clock: bool) -> str:
    if not has_clock:
        return str(value)
    return datetime.fromtimestamp(int(value) / 1e6, UTC).isoformat(timespec="seconds")


def _part_row(one: PartFacts) -> tuple[str, ...]:
    numbers = (one.rows, one.users, one.items, one.cold_item_rows, one.cold_user_rows)
    return (one.part, *(f"{number:,}" for number in numbers))
