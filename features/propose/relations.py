"""What `recsys init` makes of further tables with many rows a user or an item: a few windows."""

from recsys.features.kinds.relation_feature import LOG
from recsys.features.propose.draft import Draft, side_name
from recsys.features.propose.number_signs import signs
from recsys.features.propose.profile import TableProfile
from recsys.features.propose.roles import Key, joining_keys, time_columns
from recsys.features.propose.time_texts import TimeGuess
from recsys.features.propose.yaml_text import flow

_WINDOWS = ("7d", "30d")
_BY = {"users": "user", "items": "item"}


def relation_lines(draft: Draft, *, has_time: bool) -> list[str]:
    """Take tables that have a key and a time out of those unused; declare features of them.

    Returns the lines of `schema.relations`. Features of relations are for rankers, and need times.
    """
    lines = []
    for table in list(draft.roles.unused):
        keys, clocks = joining_keys(table, draft.roles), time_columns(table, draft.latest)
        clocks = [pair for pair in clocks if pair[0] not in keys]
        if not keys or not clocks:
            continue
        if not draft.roles.label or not has_time:
            lacks = "the time" if draft.roles.label else "a label (schema.interactions.label)"
            draft.unsure.append(
                f"{table.given} is not used: it has many rows for each of {' and '.join(keys)}, "
                f"features of such tables are of kind window, and the log lacks {lacks} for them"
            )
            draft.roles.unused.remove(table)
            continue
        draft.roles.unused.remove(table)
        lines.append(_declared(draft, table, keys, clocks[0]))
    return lines


def _declared(
    draft: Draft, table: TableProfile, keys: dict[str, str], clock: tuple[str, TimeGuess]
) -> str:
    """Add the features of one relation and the policies that it needs; return its line."""
    taken = {LOG, *draft.relations, *(side_name(key) for _, key in draft.roles.sides)}
    name = stem = side_name(Key(table, next(iter(keys)), 0.0))
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
    for side in keys.values():
        for window in (*_WINDOWS, ""):
            take = {"window": window} if window else {"take": "since"}
            feature = f"{stem}_{_BY[side]}_{window or 'since'}"
            while feature in draft.names:
                feature = f"more_{feature}"
            spec = {"name": feature, "kind": "window", "of": name, "by": _BY[side], **take}
            draft.features.append(f"- {flow(spec)}")
            draft.names.add(feature)
            draft.active[LOG] += 1
            added.append(feature)
    draft.unsure.append(
        f"{table.given} has many rows for each of {' and '.join(keys)}: the features "
        f"{', '.join(added)} are of its rows before a row of the log; see kind: window for sums, "
        "means, shares and other spans"
    )
    spec = {"keys": keys, "time": {"column": column, **guess.options}, **signs(table.written)}
    return f"{name}: {flow(spec)}"
