"""A first configuration from the user's own files, with every doubt said aloud."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from features.profile import ColumnProfile, TableProfile, profile_table
from features.reading import open_table
from features.roles import (
    Key,
    Roles,
    find_roles,
    order_column,
    rating_column,
    split_column,
    time_columns,
    weight_columns,
)
from features.suggest import Suggestion, suggest, title_of
from features.times import UNITS
from features.yaml_text import entry, flow, section

_LEAST_ROWS, _DIM = 4096, 16


@dataclass(frozen=True)
class Inference:
    """yaml: the file to write; unsure: what a person should look at; summary: what was found."""

    yaml: str
    unsure: tuple[str, ...]
    summary: tuple[str, ...]


@dataclass
class _Draft:
    """Grows while the tables are walked through."""

    roles: Roles
    latest: float
    relative_to: Path | None
    unsure: list[str] = field(default_factory=list)
    policies: dict[str, tuple[str, str]] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    values: int = 0


def infer(paths: Sequence[Path], *, relative_to: Path | None = None) -> Inference:
    """Look at tables and write a configuration for them.

    Args:
        paths: files, folders or globs; files of one folder with the same columns are one table.
        relative_to: the folder that the configuration will lie in; relative paths stay so.

    Raises:
        NotFoundError: a path does not exist.
        ConfigError: no table holds both a user and an item.
        DataError: a table is empty or cannot be read.
    """
    tables = [_look(given) for given in _merged([str(path) for path in paths])]
    roles = find_roles(_with_names(tables))
    draft = _Draft(roles, datetime.now(UTC).timestamp(), relative_to, list(roles.unsure))
    for table in tables:
        if not table.complete:
            draft.unsure.append(f"{table.given}: only its first {table.rows:,} rows were looked at")
    for table in roles.unused:
        draft.unsure.append(
            f"{table.given} is not used: none of its columns has one row for each item or user"
        )
    log, split = _log_lines(draft)
    _check_keys(draft)
    sides = _side_lines(draft)
    _features(draft)
    return Inference(
        yaml=_document(draft, log, sides, split),
        unsure=tuple(draft.unsure),
        summary=tuple(_summary(roles, draft)),
    )


def _look(given: str) -> TableProfile:
    return profile_table(open_table(given, Path(given).name), given)


def _merged(paths: list[str]) -> list[str]:
    """Join files of one folder with one header (a glob that the shell expanded) to a glob."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for path in paths:
        parent, suffix = os.path.dirname(path), Path(path).suffix
        columns = open_table(path, Path(path).name).columns
        groups.setdefault((parent, suffix, columns), []).append(path)
    out: list[str] = []
    for (_, suffix, _), members in groups.items():
        # The ends of the sorted list differ first where any two do.
        ends = zip(min(members), max(members), strict=False)
        prefix = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], ends))
        pattern = f"{prefix}*{suffix}"
        if len(members) > 1 and set(map(str, open_table(pattern, pattern).paths)) == set(members):
            out.append(pattern)
        else:
            out += members
    return out


def _with_names(tables: list[TableProfile]) -> list[TableProfile]:
    """Tables of one file name (in several folders) get their paths as names."""
    names = [table.name for table in tables]
    for table in tables:
        if names.count(table.name) > 1:
            table.files.table = table.given
    return tables


def _log_lines(draft: _Draft) -> tuple[list[str], list[str]]:
    """Return the lines of `schema.interactions` and of `split`."""
    roles, log = draft.roles, draft.roles.log
    lines = [f"user: {flow(roles.user)}", f"item: {flow(roles.item)}"]
    where: list[str] = []
    used = {roles.user, roles.item}
    clocks = [pair for pair in time_columns(log, draft.latest) if pair[0] not in used]
    order = None if clocks else order_column(log)
    if clocks:
        column, unit = clocks[0]
        used.add(column)
        lines.append(f"time: {flow({'column': column, 'unit': unit})}")
        if len(clocks) > 1:
            more = ", ".join(name for name, _ in clocks[1:])
            draft.unsure.append(f"'{column}' was taken as the time of the log; so could be {more}")
        _check_clock(draft, log.columns[column], unit)
    elif order is not None:
        used.add(order)
        lines.append(
            f"order: {flow(order)}   # no time was found; this column says what came first"
        )
        where += _order_condition(draft, log.columns[order])
    else:
        draft.unsure.append(
            "the log has neither a time nor an order: rows count in the order of the file"
        )
    rating = rating_column(log)
    if rating is not None:
        used.add(rating[0])
        condition = flow({"column": rating[0], "at_least": rating[1]})
        where.append(f"# - {condition}   # count only high ratings as positive")
        draft.unsure.append(
            f"'{rating[0]}' looks like a rating: every row counts as positive unless you take away "
            f"the '#' before {condition} in interactions.where"
        )
    if any(not line.startswith("#") for line in where):
        lines += ["where:", *(f"  {line}" for line in where)]
    elif where:
        lines += ["# where:", *(f"#   {line.removeprefix('# ')}" for line in where)]
    lines += [f"# weight: {flow(name)}   # the importance of a row" for name in weight_columns(log)]
    split = _split_lines(draft, has_time=bool(clocks))
    _contexts(draft, used)
    return lines, split


def _check_clock(draft: _Draft, column: ColumnProfile, unit: str) -> None:
    bad = column.nulls
    if unit != "datetime":
        numbers = column.numbers
        bad += int(((numbers < 0) | (numbers > draft.latest * UNITS[unit])).sum())
    if bad:
        words = f"{draft.roles.log.given}: {bad:,} times are null, negative or in the future"
        _policy(draft, "bad_times", "drop", words)


def _order_condition(draft: _Draft, column: ColumnProfile) -> list[str]:
    bad = int((column.numbers < 0).sum()) + column.nulls
    if not bad:
        return []
    draft.unsure.append(
        f"'{column.name}' is negative or null in {bad:,} rows; interactions.where leaves them out"
    )
    return [f"- {flow({'column': column.name, 'at_least': 0})}"]


def _split_lines(draft: _Draft, *, has_time: bool) -> list[str]:
    given = split_column(draft.roles.log)
    own = ["kind: time   # the latest rows are validation and test"]
    if not has_time:
        own = ["kind: leave_one_out   # each user's last row is test, the one before validation"]
    if given is None:
        return own
    lines = ["kind: column", f"column: {flow(given)}"]
    if has_time:
        draft.unsure.append(
            f"'{given}' holds train and test: the split in the configuration is by time; "
            "the lines for the given split stand beside it"
        )
        return [*own, *(f"# {line}" for line in lines)]
    draft.unsure.append(f"the split is the one given in '{given}'")
    return lines


def _contexts(draft: _Draft, used: set[str]) -> None:
    """Write the log's other columns down, commented out."""
    log = draft.roles.log
    rest = [name for name in log.columns if name not in used and name != split_column(log)]
    if not rest:
        return
    draft.features += [
        "# Columns of the log may be context of a request, but only if a request knows them",
        "# beforehand: what is known only afterwards (a rating, a duration) would leak the answer.",
    ]
    for name in rest:
        one = suggest(log.columns[name], draft.latest)
        draft.features.append(_feature_line(draft, name, "interactions", one, active=False))


def _check_keys(draft: _Draft) -> None:
    """Declare policies for what the keys are known to suffer from."""
    roles = draft.roles
    keys = [(roles.log, roles.user), (roles.log, roles.item)]
    keys += [(key.table, key.column) for key in (roles.items, roles.users) if key is not None]
    keys += [(key.table, key.column) for _, key in roles.sides]
    for table, name in keys:
        column = table.columns[name]
        if column.type == "float":
            _policy(draft, "float_ids", "integer", f"{table.given}: '{name}' came as floats")
        if column.nulls:
            words = f"{table.given}: '{name}' is null in {column.nulls:,} rows"
            _policy(draft, "bad_ids", "drop", words)
        is_main = table is not roles.log
        if is_main and column.distinct < len(column.known):
            repeated = len(column.known) - column.distinct
            words = f"{table.given}: {repeated:,} rows repeat an earlier '{name}'"
            _policy(draft, "duplicate_keys", "first", words)
    if roles.items is not None and roles.items.covered < 1:
        share = 1 - roles.items.covered
        words = f"{share:.1%} of the log's items are not in {roles.items.table.given}"
        _policy(draft, "unknown_items", "drop", words)


def _policy(draft: _Draft, name: str, choice: str, why: str) -> None:
    draft.policies[name] = (choice, why)
    draft.unsure.append(f"{why}: policies.{name} is '{choice}'")


def _side_lines(draft: _Draft) -> dict[str, list[str]]:
    """Return the lines of `schema.items`, `schema.users` and `schema.others`."""
    roles = draft.roles
    sides: dict[str, list[str]] = {}
    if roles.items is not None:
        sides["items"] = [f"key: {flow(roles.items.column)}"]
        title = title_of(_without_key(roles.items))
        if title is not None:
            sides["items"].append(f"title: {flow(title)}   # what people read in reports")
    if roles.users is not None:
        sides["users"] = [f"key: {flow(roles.users.column)}"]
    for side, key in roles.sides:
        spec = {"joins": side, "key": key.column}
        sides.setdefault("others", []).append(f"{flow(_side_name(key))}: {flow(spec)}")
    return sides


def _without_key(key: Key) -> dict[str, ColumnProfile]:
    return {name: column for name, column in key.table.columns.items() if name != key.column}


def _side_name(key: Key) -> str:
    stem = Path(key.table.given).name.split(".")[0]
    return f"more_{stem}" if stem in ("interactions", "items", "users", "") else stem


def _features(draft: _Draft) -> None:
    """Write the features of the items, the users and their side tables, before the log's."""
    roles, contexts = draft.roles, draft.features
    draft.features = []
    item_key = roles.items.column if roles.items else roles.item
    user_key = roles.users.column if roles.users else roles.user
    for side, name, key, words in (
        ("items", item_key, roles.items, roles.log.columns[roles.item]),
        ("users", user_key, roles.users, roles.log.columns[roles.user]),
    ):
        count = key.table.columns[key.column].distinct if key else words.distinct
        one = Suggestion("categorical", {"multiplicity": 2}, f"{count:,} ids", count)
        draft.features.append(_feature_line(draft, name, side, one))
        written = {name}
        if key is not None:
            _columns_of(draft, key, side, written)
        for joins, extra in roles.sides:
            if joins == side:
                _columns_of(draft, extra, _side_name(extra), written)
    draft.features += contexts


def _columns_of(draft: _Draft, key: Key, table: str, written: set[str]) -> None:
    for name, column in _without_key(key).items():
        one = suggest(column, draft.latest)
        if name in written:
            one = Suggestion("", {}, "a column of this name is read from another table already")
        if one.kind:
            written.add(name)
        if one.unsure:
            draft.unsure.append(one.unsure)
        _check_numbers(draft, key.table, column)
        draft.features.append(_feature_line(draft, name, table, one))


def _check_numbers(draft: _Draft, table: TableProfile, column: ColumnProfile) -> None:
    if column.type == "float" and not all(abs(value) < float("inf") for value in column.numbers):
        words = f"{table.given}: '{column.name}' holds infinite numbers"
        _policy(draft, "infinite_numbers", "null", words)


def _feature_line(
    draft: _Draft, column: str, table: str, one: Suggestion, *, active: bool = True
) -> str:
    """Return one entry of `features`, commented out where it is not used."""
    name = column if column not in draft.names else f"{table}_{column}"
    spec: dict[str, object] = {"name": name, "table": table, "kind": one.kind or "categorical"}
    if name != column:
        spec["column"] = column
    line = f"- {flow({**spec, **one.options})}{f'   # {one.comment}' if one.comment else ''}"
    if not active or not one.kind:
        return f"# {line}"
    draft.names.add(name)
    draft.values += one.values
    return line


def _document(draft: _Draft, log: list[str], sides: dict[str, list[str]], split: list[str]) -> str:
    """Return the whole file."""
    roles = draft.roles
    data = {"interactions": roles.log.given}
    if roles.items is not None:
        data["items"] = roles.items.table.given
    if roles.users is not None:
        data["users"] = roles.users.table.given
    paths = [entry(name, _relative(path, draft.relative_to)) for name, path in data.items()]
    if roles.sides:
        others = {
            _side_name(key): _relative(key.table.given, draft.relative_to) for _, key in roles.sides
        }
        paths += ["others:", *(f"  {entry(name, path)}" for name, path in others.items())]
    schema = ["interactions:", *(f"  {line}" for line in log)]
    for name, lines in sides.items():
        schema += [f"{name}:", *(f"  {line}" for line in lines)]
    schema += ["features:", *(f"  {line}" for line in draft.features)]
    policies = [
        f"{entry(name, choice)}   # {why}" for name, (choice, why) in draft.policies.items()
    ]
    num_rows = max(_LEAST_ROWS, 1 << max(0, 2 * draft.values - 1).bit_length())
    megabytes = num_rows * (_DIM + 1) * 4 / 1e6
    embedding = [
        f"num_rows: {num_rows}   # the memory: {megabytes:,.1f} MB at {_DIM} numbers a row, for "
        f"{draft.values:,} values"
    ]
    parts = [
        "# Written by `recsys init` from the tables below. Look at it, then: recsys check",
        section("data", paths),
        section("policies", policies, "what becomes of rows that break a rule") if policies else "",
        section("schema", schema),
        section("split", split),
        section("embedding", embedding, "one table for the values of all features"),
        "# The sections model, training, evaluation, index and tracking have defaults; every run\n"
        "# writes all of them beside its results. To change one:\n# training:\n#   epochs: 5",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _relative(path: str, folder: Path | None) -> str:
    if folder is None or os.path.isabs(path):
        return path
    return os.path.relpath(path, folder)


def _summary(roles: Roles, draft: _Draft) -> list[str]:
    log = roles.log
    users, items = log.columns[roles.user].distinct, log.columns[roles.item].distinct
    least = "" if log.complete else "at least "
    lines = [
        f"interactions  {log.given}: {least}{log.rows:,} rows, {users:,} users ({roles.user}), "
        f"{items:,} items ({roles.item})"
    ]
    for what, key in (("items", roles.items), ("users", roles.users)):
        if key is not None:
            lines.append(
                f"{what:<12}  {key.table.given}: {key.table.rows:,} rows, key {key.column}"
            )
    lines += [
        f"{'joins ' + side:<12}  {key.table.given}: {key.table.rows:,} rows, key {key.column}"
        for side, key in roles.sides
    ]
    lines.append(f"features      {', '.join(sorted(draft.names))} ({draft.values:,} values)")
    return lines
