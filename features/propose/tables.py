"""A first configuration from the user's own files, with every doubt said aloud."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from recsys.features.kinds.categorical import proposed_id
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.propose.clicks import (
    BY_ORDER_OF_ROWS,
    context_lines,
    label_lines,
    null_label_lines,
    sections,
    stream_lines,
    weight_lines,
)
from recsys.features.propose.draft import Draft, side_name
from recsys.features.propose.events import event_lines, gap_lines
from recsys.features.propose.few_rows import few_rows_lines
from recsys.features.propose.file_encodings import assumed_encoding
from recsys.features.propose.further_log import further_log_lines
from recsys.features.propose.id_forms import id_form_lines
from recsys.features.propose.joined_files import joined_files
from recsys.features.propose.number_signs import sign_lines, signs
from recsys.features.propose.one_item import refuse_one_item
from recsys.features.propose.profile import ColumnProfile, TableProfile, profile_table
from recsys.features.propose.rates import rate_lines
from recsys.features.propose.relations import relation_lines
from recsys.features.propose.roles import (
    VALIDATION_WORDS,
    Key,
    Roles,
    find_roles,
    label_columns,
    order_column,
    rating_column,
    split_column,
)
from recsys.features.propose.sessions import session_lines
from recsys.features.propose.signed_amounts import amount_lines
from recsys.features.propose.suggest import suggest, title_of
from recsys.features.propose.time_columns import time_columns, unused_times
from recsys.features.propose.yaml_text import flow
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import LogSource, TableSource, path_words


@dataclass(frozen=True)
class Inference:
    """yaml: the file to write; unsure: what a person should look at; summary: what was found.

    rows: of the log, None where it was not looked through. ranks: whether it has a label.
    """

    yaml: str
    unsure: tuple[str, ...]
    summary: tuple[str, ...]
    rows: int | None = None
    ranks: bool = False


def infer(
    paths: Sequence[Path],
    *,
    relative_to: Path | None = None,
    split: Sequence[str] = (),
    where: Sequence[str] = (),
    further: Sequence[str] = (),
) -> Inference:
    """Look at tables and write a configuration for them.

    Args:
        paths: files, folders or globs; files of one folder with the same columns are one table.
        relative_to: the folder that the configuration will be in; relative paths stay relative.
        split: lines of the section `split`, where they are known.
        where: lines of `interactions.where`, where they are known.
        further: sections to write as they are.

    Raises:
        NotFoundError: a path does not exist.
        ConfigError: no table holds both a user and an item, and none a label.
        DataError: a table is empty or cannot be read.
    """
    tables = [_look(given) for given in joined_files([str(path) for path in paths])]
    roles = find_roles(_with_names(tables))
    refuse_one_item(roles)
    draft = Draft(roles, datetime.now(UTC).timestamp(), relative_to, list(roles.unsure))
    for table in tables:
        draft.unsure += table.left_out
        if not table.complete:
            draft.unsure.append(f"{table.given}: only its first {table.rows:,} rows were looked at")
    sides: dict[str, list[str]] = {}
    if roles.user:
        log, proposed, used = _log_lines(draft, where)
        roles.log.files.require(sorted(name for name in used if name in roles.log.files.columns))
        _check_keys(draft)
        sides = _side_lines(draft)
        _features(draft)
    else:
        log, proposed, used = stream_lines(draft)
    draft.features += context_lines(draft, used) if roles.label else _contexts(draft, used)
    draft.features += rate_lines(draft) if roles.label else []
    if roles.user:
        relations = relation_lines(draft, has_time=any(one.startswith("time:") for one in log))
        sides |= {"relations": relations} if relations else {}
    _say_unused(draft)
    asked = any(line.startswith("targets:") for line in log)
    visits = [] if roles.label else session_lines(draft, targets=asked)
    more = sections(draft) if roles.label else visits or few_rows_lines(draft)
    more = [*gap_lines(log), *more, *further]
    return Inference(
        yaml=draft.document(log, sides, split or proposed, more),
        unsure=tuple(draft.unsure),
        summary=tuple(_summary(roles, draft)),
        rows=roles.log.rows if roles.log.complete else None,
        ranks=bool(roles.label),
    )


def _say_unused(draft: Draft) -> None:
    more = draft.more_log
    others = [one.given for one in draft.roles.other_logs if more is None or one is not more.table]
    if others:
        draft.unsure.insert(
            0,
            f"{draft.roles.log.given} is used as the interactions (most rows); other candidates: "
            f"{', '.join(others)}",
        )
    why = "none of its columns has one row for each item or user"
    if not draft.roles.user:
        why = "a log without user and item is read as a stream: join the table to it in the source"
    for table in draft.roles.unused:
        draft.unsure.append(f"{table.given} is not used: {why}")


def _look(given: str | tuple[LogSource, ...]) -> TableProfile:
    if not isinstance(given, str):
        shown = path_words(given)
        return replace(profile_table(open_table(given, shown), shown), logs=given)
    files = open_table(given, Path(given).name)
    encoding = assumed_encoding(files)
    if encoding:
        files = open_table(TableSource(path=given, encoding=encoding), Path(given).name)
        files.assumed_encoding = encoding
    return profile_table(files, given)


def _with_names(tables: list[TableProfile]) -> list[TableProfile]:
    """Tables of one file name (in several folders) get their paths as names."""
    names = [table.name for table in tables]
    for table in tables:
        if names.count(table.name) > 1:
            table.files.table = table.given
    return tables


def _log_lines(draft: Draft, known: Sequence[str]) -> tuple[list[str], list[str], set[str]]:
    """Return the lines of `schema.interactions`, those of `split`, and the columns of a role.

    known: conditions on rows that are known beforehand.
    """
    roles, log = draft.roles, draft.roles.log
    lines = [f"user: {flow(roles.user)}", f"item: {flow(roles.item)}"]
    lines += sign_lines(log.written)
    where: list[str] = []
    used = {roles.user, roles.item}
    if roles.session:
        used.add(roles.session)
        lines.append(f"session: {flow(roles.session)}   # which rows are of one session")
    if roles.label:
        used.add(roles.label)
        lines += label_lines(draft)
        where += null_label_lines(draft)
    clocks = [pair for pair in time_columns(log, draft.latest) if pair[0] not in used]
    # With a label, a position is most likely the place on the page, which is a feature.
    order = None if clocks or roles.label else order_column(log, roles.session)
    if clocks:
        column, guess = clocks[0]
        used.add(column)
        lines.append(f"time: {flow({'column': column, **guess.options})}")
        if len(clocks) > 1:
            more = ", ".join(name for name, _ in clocks[1:])
            draft.unsure.append(
                f"'{column}' is used as the time of the log; other candidates: {more}"
            )
        draft.check_clock(log.columns[column], guess)
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
    others = {name for name, _ in clocks}
    draft.unsure += unused_times(log, draft.latest, used | others)
    if not roles.label:
        where += known or [*_positive_lines(draft, used), *amount_lines(draft, used)]
        where += [] if known else further_log_lines(draft, clocks[:1], used, lines)
        lines += event_lines(draft, used)
    if any(not line.startswith("#") for line in where):
        lines += ["where:", *(f"  {line}" for line in where)]
    elif where:
        lines += ["# where:", *(f"#   {line.removeprefix('# ')}" for line in where)]
    lines += weight_lines(draft)
    return lines, _split_lines(draft, has_time=bool(clocks), used=used), used


def _positive_lines(draft: Draft, used: set[str]) -> list[str]:
    """Return conditions that may say which rows count as positive, commented out."""
    log = draft.roles.log
    rating = rating_column(log)
    for name in label_columns(log, perhaps=True):
        draft.unsure.append(
            f"'{name}' holds 0 and 1, and every row counts as positive: if it says what came of a "
            f"row, keep the rows of 1 with interactions.where, or rank by it: interactions.label: "
            f"{flow({'column': name})} and model: {{kind: autoint}}"
        )
    if rating is None:
        return []
    used.add(rating[0])
    condition = flow({"column": rating[0], "at_least": rating[1]})
    draft.unsure.append(
        f"'{rating[0]}' looks like a rating: every row counts as positive unless you remove "
        f"the '#' before {condition} in interactions.where"
    )
    return [f"# - {condition}   # count only high ratings as positive"]


def _order_condition(draft: Draft, column: ColumnProfile) -> list[str]:
    bad = int((column.numbers < 0).sum()) + column.nulls
    if not bad:
        return []
    draft.unsure.append(
        f"'{column.name}' is negative or null in {bad:,} rows; interactions.where leaves them out"
    )
    return [f"- {flow({'column': column.name, 'at_least': 0})}"]


def _split_lines(draft: Draft, *, has_time: bool, used: set[str]) -> list[str]:
    given = split_column(draft.roles.log)
    own = ["kind: time   # the latest rows are validation and test"]
    if not has_time and draft.roles.label:
        own = [BY_ORDER_OF_ROWS]
    elif not has_time:
        own = ["kind: leave_one_out   # each user's last row is test, the one before validation"]
    if given is None:
        return own
    used.add(given)
    lines = ["kind: column", f"column: {flow(given)}"]
    words = {str(word).strip().lower() for word in draft.roles.log.columns[given].words.to_pylist()}
    if not words & VALIDATION_WORDS:
        lines[0] += "   # without validation rows: a tenth of each user's training rows is drawn"
    if has_time:
        draft.unsure.append(
            f"'{given}' holds train and test: the split in the configuration is by time; "
            "the lines for the given split are next to it"
        )
        return [*own, *(f"# {line}" for line in lines)]
    draft.unsure.append(f"the split is the one given in '{given}'")
    return lines


def _contexts(draft: Draft, used: set[str]) -> list[str]:
    """Return the log's other columns as features, commented out."""
    log = draft.roles.log
    rest = [name for name in log.columns if name not in used]
    if not rest:
        return []
    lines = [
        "# Columns of the log may be context of a request, but only if a request knows them",
        "# beforehand: what is known only afterwards (a rating, a duration) would leak the answer.",
    ]
    for name in rest:
        one = suggest(log.columns[name], Look(draft.latest))
        lines.append(draft.feature_line(name, "interactions", one, active=False))
    return lines


def _check_keys(draft: Draft) -> None:
    """Declare policies for what the keys are known to suffer from."""
    roles = draft.roles
    keys = [(roles.log, name) for name in (roles.user, roles.item, roles.session) if name]
    keys += [(key.table, key.column) for key in (roles.items, roles.users) if key is not None]
    keys += [(key.table, key.column) for _, key in roles.sides]
    for table, name in keys:
        column = table.columns[name]
        if column.type == "float":
            draft.policy("float_ids", "integer", f"{table.given}: '{name}' came as floats")
        if column.nulls:
            words = f"{table.given}: '{name}' is null in {column.nulls:,} rows"
            draft.policy("bad_ids", "drop", words)
        is_main = table is not roles.log
        if is_main and column.distinct < len(column.known):
            repeated = len(column.known) - column.distinct
            words = f"{table.given}: {repeated:,} rows repeat an earlier '{name}'"
            draft.policy("duplicate_keys", "first", words)
    if roles.items is not None and roles.items.covered < 1:
        share = 1 - roles.items.covered
        words = f"{share:.1%} of the log's items are not in {roles.items.table.given}"
        draft.policy("unknown_items", "drop", words)


def _side_lines(draft: Draft) -> dict[str, list[str]]:
    """Return the lines of `schema.items`, `schema.users` and `schema.others`."""
    roles = draft.roles
    sides: dict[str, list[str]] = {}
    forms = id_form_lines(draft)
    if forms:
        sides["ids"] = forms
    if roles.items is not None:
        sides["items"] = [f"key: {flow(roles.items.column)}"]
        sides["items"] += sign_lines(roles.items.table.written)
        title = title_of(_without_key(roles.items))
        if title is not None:
            sides["items"].append(f"title: {flow(title)}   # what people read in reports")
    if roles.users is not None:
        sides["users"] = [f"key: {flow(roles.users.column)}"]
        sides["users"] += sign_lines(roles.users.table.written)
    for side, key in roles.sides:
        spec = {"joins": side, "key": key.column, **signs(key.table.written)}
        sides.setdefault("others", []).append(f"{flow(side_name(key))}: {flow(spec)}")
    return sides


def _without_key(key: Key) -> dict[str, ColumnProfile]:
    return {name: column for name, column in key.table.columns.items() if name != key.column}


def _features(draft: Draft) -> None:
    """Write the features of the items, the users and their side tables."""
    roles = draft.roles
    item_key = roles.items.column if roles.items else roles.item
    user_key = roles.users.column if roles.users else roles.user
    for side, name, key, words in (
        ("items", item_key, roles.items, roles.log.columns[roles.item]),
        ("users", user_key, roles.users, roles.log.columns[roles.user]),
    ):
        count = key.table.columns[key.column].distinct if key else words.distinct
        one = proposed_id(count)
        draft.features.append(draft.feature_line(name, side, one))
        written = {name}
        if key is not None:
            _columns_of(draft, key, side, written)
        for joins, extra in roles.sides:
            if joins == side:
                _columns_of(draft, extra, side_name(extra), written)


def _columns_of(draft: Draft, key: Key, table: str, written: set[str]) -> None:
    for name, column in _without_key(key).items():
        one = suggest(column, Look(draft.latest))
        if name in written:
            one = Suggestion("", {}, "a column of this name is read from another table already")
        if one.kind:
            written.add(name)
        if one.unsure:
            draft.unsure.append(one.unsure)
        draft.check_numbers(key.table, column)
        draft.features.append(draft.feature_line(name, table, one))


def _summary(roles: Roles, draft: Draft) -> list[str]:
    log = roles.log
    facts = [f"{'' if log.complete else 'at least '}{log.rows:,} rows"]
    for what, column in (
        ("users", roles.user),
        ("items", roles.item),
        ("sessions", roles.session),
    ):
        if column:
            facts.append(f"{log.columns[column].distinct:,} {what} ({column})")
    facts += [f"label {roles.label}"] if roles.label else []
    lines = [f"interactions  {log.given}: {', '.join(facts)}"]
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
