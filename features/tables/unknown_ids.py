"""Rows of the log whose item or user no table knows: refused, left out or kept, as policies say.

A table that knows none of the ids of the log is an error whatever the policies: its ids are
written in another way, or it is another table.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow.compute as pc

from recsys.core.errors import DataError
from recsys.features.schema import Schema
from recsys.features.tables.attributes import Attributes
from recsys.features.tables.ids import Ids
from recsys.features.tables.log import Log
from recsys.features.tables.near_ids import NearMatch, near_match
from recsys.features.tables.sources import KEEP, Policies

Side = Literal["items", "users"]
_TABLES: tuple[tuple[Side, str], ...] = (("items", "catalogue"), ("users", "users table"))
_FEW = 0.05


def without_unknown(
    log: Log, schema: Schema, others: Mapping[str, Attributes], policies: Policies
) -> Log:
    """Drop, keep or refuse rows whose item (user) the catalogue (users table) lacks.

    Raises:
        DataError: a table has none of the ids of the log.
    """
    for side, what in _TABLES:
        if side not in others:
            continue
        ids: Ids = log.items if side == "items" else log.users
        known = others[side].ids
        absent = np.asarray(pc.invert(pc.is_in(ids.distinct, known.used())))
        unknown = absent[ids.codes]
        at = np.flatnonzero(unknown)
        if len(at) == 0:
            continue
        used = np.bincount(ids.codes, minlength=len(ids.distinct)) > 0
        count, share = int((absent & used).sum()), (absent & used).sum() / used.sum()
        trained = log.ledger.trained
        near = near_match(ids.used(), known.used()) if share > _FEW and not trained else None
        near = None if near is None else _beside(near, schema, side)
        if count == int(used.sum()):
            raise _no_match(side, what, ids, known, near)
        rule = policies.rule(f"unknown_{side}", "drop (or keep, without attributes)")
        options = [] if near is None else [near.remedy(side)]
        reason = f"the {what} has no such key"
        log.ledger.note(
            ids.column,
            reason if near is None or not rule.forgives else f"{reason}, though {near}",
            ids.rows[at],
            remedy=", or ".join([*options, f"add them to {known.place}"]),
            rule=rule,
            value=repr(ids.distinct[int(ids.codes[at[0]])].as_py()),
        )
        if rule.choice != KEEP:
            log = log.keep(~unknown)
    return log


def _beside(near: NearMatch, schema: Schema, side: Side) -> NearMatch:
    """Return the match with the form that the schema has already and this one."""
    form = schema.form_of(side)
    return near if form is None else replace(near, form=form.with_also(near.form))


def _no_match(side: Side, what: str, ids: Ids, known: Ids, near: NearMatch | None) -> DataError:
    given, own = ids.used(), known.used()
    examples = f" (such as {own[0].as_py()!r})" if len(own) else ""
    remedy = f"say with schema.ids.{side} how ids are written, name the right column, or leave the "
    return DataError(
        f"none of the {len(given):,} {side} (such as {given[0].as_py()!r}) is in the {what}, "
        f"{known.place}{examples}",
        file=ids.files,
        column=ids.column,
        remedy=f"{remedy}table out" if near is None else near.remedy(side),
    )
