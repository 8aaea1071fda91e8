"""What `recsys init` makes of further tables with many rows a user or an item: a few windows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.kinds.relation_feature import LOG
from recsys.features.propose.draft import Draft, side_name
from recsys.features.propose.number_signs import signs
from recsys.features.propose.profile import ColumnProfile, TableProfile
from recsys.features.propose.rates import Gained
from recsys.features.propose.roles import (
    ITEM_WORDS,
    USER_WORDS,
    is_key_of,
    joining_keys,
)
from recsys.features.propose.roles import Key as SideKey
from recsys.features.propose.time_columns import time_columns
from recsys.features.propose.time_texts import TimeGuess
from recsys.features.propose.window_probe import USUAL, Tried, pairs_that_pay
from recsys.features.propose.yaml_text import flow
from recsys.features.relations.facts import Key
from recsys.features.tables.id_forms import IdForm

_KEY: dict[str, Key] = {"users": "user", "items": "item"}


def relation_lines(draft: Draft, *, has_time: bool) -> list[str]:
    """Take tables that have a key and a time out of those unused; declare features of them.

    Returns the lines of `schema.relations`. Features of relations are for rankers, and need times.
    """
    lines = []
    for table in list(draft.roles.unused):
        keys, clocks = _keys(draft, table), time_columns(table, draft.latest)
        clocks = [pair for pair in clocks if pair[0] not in keys]
        if not keys or not clocks:
            continue
        if not draft.roles.label or not has_time:
            draft.unsure.append(_why_unused(draft, table, keys, has_time=has_time))
            draft.roles.unused.remove(table)
            continue
        draft.roles.unused.remove(table)
        paying = pairs_that_pay(draft, table, _columns(keys), clocks[0], _forms(draft))
        lines.append(_declared(draft, table, keys, clocks[0], paying))
    return lines


def _why_unused(draft: Draft, table: TableProfile, keys: dict[str, str], *, has_time: bool) -> str:
    """Say what a log lacks for windows of a table, or who may read them."""
    words = f"{table.given} is not used: it has many rows for each of {' and '.join(keys)}, "
    if not has_time:
        return f"{words}features of such tables are of kind window, and the log lacks the time"
    if "users" not in keys.values():
        return f"{words}and a log without a label has windows of its users' rows alone"
    return (
        f"{words}of which a two-tower or a model of sessions may read windows by user, and the "
        "ranker of a pipeline all: see kind: window"
    )


def _columns(keys: dict[str, str]) -> dict[Key, str]:
    """Return the side that a column leads to -> the column."""
    return {_KEY[side]: column for column, side in keys.items()}


def _forms(draft: Draft) -> dict[Key, IdForm | None]:
    roles = draft.roles
    sides: dict[Key, SideKey | None] = {"user": roles.users, "item": roles.items}
    return {
        key: one.near.form if one is not None and one.near is not None else None
        for key, one in sides.items()
    }


def _keys(draft: Draft, table: TableProfile) -> dict[str, str]:
    """Return the columns that hold ids of the log, as `schema.ids` writes them -> side."""
    roles = draft.roles
    found = joining_keys(table, roles)
    for side, column, key, words in (
        ("users", roles.user, roles.users, USER_WORDS),
        ("items", roles.item, roles.items, ITEM_WORDS),
    ):
        if side in found.values():
            continue
        named = [name for name in table.columns if name == column or is_key_of(name, words)]
        form = key.near.form if key is not None and key.near is not None else None
        for name in named:
            if name in found or table.columns[name].type not in ("integer", "string"):
                continue
            if form is not None and _share(roles.log.columns[column], table.columns[name], form):
                found[name] = side
                break
            draft.unsure.append(
                f"{table.given}: '{name}' has none of the ids of '{column}' in {roles.log.given}: "
                f"it is no key of the {side}; if the ids are written in another way, see schema.ids"
            )
    return found


def _share(log: ColumnProfile, other: ColumnProfile, form: IdForm) -> float:
    """Return the share of the ids of a column that the log has, both as `form` writes them."""
    known, own = (form.written(one.words.cast(pa.large_string())) for one in (log, other))
    return float(np.asarray(pc.is_in(own, known)).mean()) if len(own) else 0.0


def _declared(
    draft: Draft,
    table: TableProfile,
    keys: dict[str, str],
    clock: tuple[str, TimeGuess],
    paying: Sequence[Gained[Tried]],
) -> str:
    """Add the features of one relation and the policies that it needs; return its line."""
    taken = {LOG, *draft.relations, *(side_name(key) for _, key in draft.roles.sides)}
    name = stem = side_name(SideKey(table, next(iter(keys)), 0.0))
    while name in taken:
        name = f"more_{name}"
    draft.relations[name] = table
    for column in keys:
        profile = table.columns[column]
        if profile.type == "float":
            draft.policy("float_ids", "integer", f"{table.given}: '{column}' came as floats")
        if profile.nulls:
            words = f"{table.given}: '{column}' is null in {profile.nulls:,} rows"
            draft.policy("bad_ids", "drop", words)
    column, guess = clock
    draft.check_clock(table.columns[column], guess, table.given)
    added = []
    usual = [(one, "") for side in keys.values() for one in USUAL[_KEY[side]]]
    if paying:
        draft.features += [
            "# Windows of the rows of user and item together in another table. A model of the",
            "# rates of both has less log loss with each of these, on rows held out:",
        ]
    pairs = [
        (one.what, f"   # {one.loss_before:.4f}, with it {one.loss_after:.4f}") for one in paying
    ]
    for one, comment in [*pairs, *usual]:
        feature = f"{stem}_{one.by}_{one.title}"
        while feature in draft.names:
            feature = f"more_{feature}"
        spec = {"name": feature, "kind": "window", "of": name, "by": one.by, **one.options}
        draft.features.append(f"- {flow(spec)}{comment}")
        draft.names.add(feature)
        draft.active[LOG] += 1
        added.append(feature)
    draft.unsure.append(
        f"{table.given} has many rows for each of {' and '.join(keys)}: the features "
        f"{', '.join(added)} are of its rows before a row of the log; see kind: window for sums, "
        "means, shares and other spans"
    )
    role: dict[str, object] = {"keys": keys, "time": {"column": column, **guess.options}}
    return f"{name}: {flow(role | signs(table.written))}"
