"""What `recsys check` says about the data: counts, gaps, time, the split, and leaks.

Reads nothing: the tables were read and checked already; this looks at what came out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.features.propose.advice import LogFacts, Suggestion, new_users, suggestion
from recsys.features.propose.columns import Column, ColumnFacts, looked_through
from recsys.features.propose.doubts import context_warnings, pair_counts, split_warnings
from recsys.features.propose.estimate import Estimate
from recsys.features.propose.funnel import asked_rows, funnel_words
from recsys.features.propose.labels import (
    LABEL,
    LabelledPart,
    label_lines,
    label_warnings,
    labelled_parts,
)
from recsys.features.propose.leaks import leak_warnings
from recsys.features.propose.part_facts import PARTS, PartFacts, part_facts, part_lines
from recsys.features.propose.repeats import (
    Repeats,
    Spread,
    repeat_lines,
    repeat_warnings,
    repeats,
    spread,
)
from recsys.features.propose.shape import Shape, shape
from recsys.features.propose.spelt_ids import id_warnings
from recsys.features.propose.text_grid import grid
from recsys.features.propose.time_doubts import time_doubts
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables
from recsys.features.tables.ledger import Drop


@dataclass(frozen=True)
class Report:
    """Everything `recsys check` says."""

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
    repeats: Repeats
    spread: Spread
    shape: Shape
    suggestion: Suggestion
    notes: tuple[str, ...] = ()
    """What is well, and good to know."""
    labels: tuple[LabelledPart, ...] = ()
    """Of a log with a label, part by part, and then of each further outcome."""
    estimate: Estimate | None = None
    """What the training is estimated to take; None: nothing was measured of such a model."""

    @property
    def status(self) -> str:
        """`ok`, or `readable` where there are warnings: training runs, but look at these first."""
        return "readable" if self.warnings else "ok"

    def lines(self) -> list[str]:
        """Return the report as text."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.rows.items())
        columns = [
            (one.table, one.column, one.type, f"{one.nulls:,}", f"{one.distinct:,}")
            for one in self.columns
        ]
        out = [counts, "", *grid(("table", "column", "type", "nulls", "distinct"), columns)]
        out += ["", *part_lines(self.parts)]
        out += ["", *label_lines(self.labels)] if self.labels else []
        out += [
            "",
            f"repeats of a user and an item: {self.repeated_events:,} rows; held-out rows whose "
            f"pair was seen before: {self.repeated_across_parts:,}",
            f"without an interaction: {self.items_without_events:,} items, "
            f"{self.users_without_events:,} users",
            *repeat_lines(self.repeats, self.spread),
        ]
        if self.table_bytes is not None:
            size = f"{self.table_bytes / 1e6:,.1f} MB"
            out.append(f"embedding table with its optimizer state: {size}")
        out += [str(drop) for drop in self.drops]
        out += ["", self.suggestion.line]
        out += [] if self.estimate is None else [self.estimate.line]
        out += [f"note: {note}" for note in self.notes]
        out += [f"warning: {warning}" for warning in self.warnings]
        out.append(f"{self.status}: fingerprint {self.fingerprint}")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"status": self.status, **asdict(self)}


def inspect(
    schema: Schema,
    tables: Tables,
    parts: NDArray[np.int8],
    *,
    table_bytes: int | None,
    notes: Sequence[str] = (),
    session_lengths: NDArray[np.int64] | None = None,
) -> Report:
    """Describe checked tables.

    Args:
        schema: what the tables are.
        tables: what `read_tables` gave.
        parts: (E,) the part of each event: 0 train, 1 validation, 2 test.
        table_bytes: memory of the embedding table with its optimizer state; None: there is none.
        notes: what is good to know besides.
        session_lengths: (S,) rows of each session, where the log is cut.
    """
    events, columns = tables.events, _columns(schema, tables)
    asked = asked_rows(events, parts)
    num_pairs, across, again = pair_counts(schema, tables, parts, asked)
    of_items = np.bincount(events.item_row, minlength=tables.items.num_rows)
    of_users = np.bincount(events.user_row, minlength=tables.users.num_rows)
    outcomes = _outcome_facts(schema, events, parts)
    found_parts = tuple(part_facts(schema, tables, parts))
    found_repeats = repeats(schema, tables)
    counts = {"user_counts": of_users, "item_counts": of_items}
    form = shape(schema, events, parts, **counts, session_lengths=session_lengths)
    codes = {one.facts.column: one.codes for one in columns["interactions"]}
    return Report(
        rows={"interactions": len(events), "items": len(of_items), "users": len(of_users)},
        columns=tuple(one.facts for table in columns.values() for one in table),
        parts=found_parts,
        repeated_events=len(events) - num_pairs,
        repeated_across_parts=across,
        users_without_events=int((of_users == 0).sum()),
        items_without_events=int((of_items == 0).sum()),
        drops=tables.drops,
        warnings=(
            *id_warnings(schema, tables),
            *context_warnings(schema, events, codes, num_pairs),
            *leak_warnings(schema, tables, parts),
            *split_warnings(schema, events, parts, again, int(asked.sum())),
            *repeat_warnings(found_repeats, len(events), len(of_items)),
            *time_doubts(schema, tables),
            *(warning for one in outcomes for warning in label_warnings(one)),
        ),
        table_bytes=table_bytes,
        fingerprint=tables.fingerprint,
        repeats=found_repeats,
        spread=spread(of_users, of_items),
        shape=form,
        suggestion=suggestion(_log_facts(schema, events, len(of_items), found_parts, form)),
        notes=(*notes, *funnel_words(schema, events, parts)),
        labels=tuple(part for one in outcomes for part in one),
    )


def _columns(schema: Schema, tables: Tables) -> Mapping[str, list[Column]]:
    """Return what there is to say of each column, by table."""
    categories = {
        one.source_column for one in schema.features_of("interactions") if one.is_category
    }
    context = tables.events.context
    sources = {"items": tables.items, "users": tables.users, "interactions": context}
    return {
        table: [
            looked_through(
                table, name, held.column(name), encode=held is context and name in categories
            )
            for name in held.column_names
        ]
        for table, held in sources.items()
    }


def _log_facts(
    schema: Schema, events: Events, num_items: int, parts: tuple[PartFacts, ...], form: Shape
) -> LogFacts:
    roles = schema.interactions
    described = [one for one in schema.features_of("items") if not schema.is_id(one)]
    return LogFacts(
        rows=len(events),
        items=num_items,
        labelled=roles.label is not None,
        timed=roles.time is not None or roles.order is not None,
        described=len(described),
        new_users=new_users(parts),
        length=form.lengths.median,
    )


def _outcome_facts(
    schema: Schema, events: Events, parts: NDArray[np.int8]
) -> list[tuple[LabelledPart, ...]]:
    """Return the parts of the label and of each further outcome, of a log that has them."""
    if events.label is None:
        return []
    found = [labelled_parts(PARTS, LABEL, events.label, parts)]
    if events.outcomes is not None:
        names = schema.interactions.outcome_names
        for name, column in zip(names, events.outcomes.T, strict=True):
            found.append(labelled_parts(PARTS, name, column, parts))
    return found
