"""What rows of a relation have of the row of another one that they lead to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.distinct import first_places
from recsys.features.relations.facts import KEYS, Facts, Key
from recsys.features.relations.timeline import Integers
from recsys.features.tables.ids import Ids, settle_ids
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.rows import IdRole
from recsys.features.tables.sources import KEEP, Policies, Rule

ORPHANS = Rule("left join", choice="")
"""The rule of rows that lead nowhere: no feature sees them."""


@dataclass(frozen=True, eq=False)
class RelationRows:
    """R usable rows of a relation as they were read.

    facts: without keys. ids: role -> ids, of one type within the table alone. ledger: what was
    found. has_time: whether they have a time of their own; else `facts.time` is empty.
    """

    facts: Facts
    ids: Mapping[IdRole, Ids]
    ledger: Ledger
    has_time: bool

    @property
    def keys(self) -> dict[Key, Ids]:
        """The ids of users and items."""
        return {key: self.ids[key] for key in KEYS if key in self.ids}

    def with_ids(self, key: Key, ids: Ids) -> "RelationRows":
        """Return the rows with other ids for one key."""
        return replace(self, ids={**self.ids, key: ids})

    def settled(self, policies: Policies) -> "RelationRows":
        """Return the rows with ids whose type is decided within the table alone."""
        keys: dict[IdRole, Ids] = {
            key: settle_ids([ids], policies)[0] for key, ids in self.keys.items()
        }
        return replace(self, ids={**self.ids, **keys})

    def whole(self) -> Facts:
        """Return the facts with their keys."""
        return replace(self.facts, ids=self.keys)

    def keep(self, mask: NDArray[np.bool_]) -> "RelationRows":
        """Return the rows where `mask` (R,) holds."""
        ids = {r: one.with_rows(one.codes[mask], one.rows[mask]) for r, one in self.ids.items()}
        facts = self.facts
        kept = Facts(
            facts.name,
            facts.time[mask] if self.has_time else facts.time,
            numbers={column: values[mask] for column, values in facts.numbers.items()},
            codes={column: values[mask] for column, values in facts.codes.items()},
            met={where: values[mask] for where, values in facts.met.items()},
        )
        return replace(self, facts=kept, ids=ids)


def linked(rows: RelationRows, to: RelationRows, policies: Policies) -> RelationRows:
    """Return rows with the keys and the time that they lack of the rows of `to` they lead to.

    Raises:
        DataError: two rows of `to` have one id, and no policy says which counts.
    """
    link, key = settle_ids([rows.ids["link"], to.ids["key"]], policies)
    row_of = _row_of_each_id(key, to.ledger, policies)
    places = np.asarray(pc.index_in(link.distinct, key.distinct).fill_null(-1)).astype(np.int64)
    at = np.append(row_of, -1)[places][link.codes]
    what = f"no row of {to.facts.name} has this id"
    rows.ledger.note(link.column, what, link.rows[at < 0], rule=ORPHANS)
    kept, at = rows.keep(at >= 0), at[at >= 0]
    numbers = kept.ids["link"].rows
    further: dict[IdRole, Ids] = {
        k: one.with_rows(one.codes[at], numbers) for k, one in to.keys.items()
    }
    facts = kept.facts if rows.has_time else replace(kept.facts, time=to.facts.time[at])
    return replace(kept, facts=facts, ids={**further, **kept.ids}, has_time=True)


def _row_of_each_id(key: Ids, ledger: Ledger, policies: Policies) -> Integers:
    """Return the row (D,) of each distinct id, -1 where none is left."""
    codes, last = key.codes, policies.duplicate_keys == "last"
    order = np.arange(len(codes))[::-1] if last else np.arange(len(codes))
    chosen = order[first_places(codes[order])]
    again = np.ones(len(codes), bool)
    again[chosen] = False
    ledger.note(
        key.column,
        "the id has a later row" if last else "the id has an earlier row",
        key.rows[again],
        remedy="keep one row an id",
        rule=policies.rule("duplicate_keys", "first (or last)"),
    )
    ledger.check()
    found = np.full(len(key.distinct), -1)
    found[codes[chosen]] = chosen
    return found


def without_repeats(rows: RelationRows, policies: Policies) -> RelationRows:
    """Return the rows of a log without those that policies.duplicate_events leaves out of it."""
    if policies.duplicate_events == KEEP or set(rows.keys) != set(KEYS):
        return rows
    columns = (rows.facts.time, rows.ids["item"].codes, rows.ids["user"].codes)
    order = np.lexsort(columns)
    same = np.ones(len(order) - 1, bool)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    kept = np.ones(len(order), bool)
    kept[order[1:][same]] = False
    return rows.keep(kept)
