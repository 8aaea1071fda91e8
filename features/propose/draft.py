"""The configuration that `recsys init` writes, as it grows: features, policies, doubts."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recsys.core.remote.path import is_remote
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.registry import KINDS
from recsys.features.kinds.suggestion import Suggestion
from recsys.features.propose.profile import ColumnProfile, TableProfile
from recsys.features.propose.roles import Key, Roles
from recsys.features.propose.time_texts import TimeGuess, guessed_instants
from recsys.features.propose.yaml_text import entry, flow, section
from recsys.features.tables.times import UNITS

_LEAST_ROWS, _DIM = 4096, 16


@dataclass(frozen=True)
class MoreLog:
    """A further table that is read as a part of the log.

    columns: name in the log -> in this table. types: what its rows are. constants: what is set for
    its rows; first: for those of the log itself.
    """

    table: TableProfile
    columns: Mapping[str, str]
    types: tuple[str, ...]
    constants: Mapping[str, str | int]
    first: Mapping[str, str | int]

    def own(self, column: str) -> ColumnProfile:
        """Return what a column of the log is in this table."""
        return self.table.columns[self.columns.get(column, column)]


@dataclass
class Draft:
    """Grows while the tables are walked through.

    latest: the instant, in seconds since 1970, after which a time is in the future. relative_to:
    the folder of the configuration. values: distinct values that the features look up.
    """

    roles: Roles
    latest: float
    relative_to: Path | None
    unsure: list[str] = field(default_factory=list)
    policies: dict[str, tuple[str, str]] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    active: Counter[str] = field(default_factory=Counter)
    """Features in use by table."""
    values: int = 0
    autos: int = 0
    """Features of `multiplicity: auto`."""
    categories: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Features of one category a row: table and column of each."""
    relations: dict[str, TableProfile] = field(default_factory=dict)
    """Each further table with many rows a key."""
    more_log: MoreLog | None = None
    """A table that is a part of the log."""
    table_rows: int = 0
    """Rows of the table; 0: as many as its values ask for."""
    table_lines: list[str] = field(default_factory=list)
    """What `embedding` sets besides its size."""

    def policy(self, name: str, choice: str, why: str) -> None:
        """Declare a policy, and say why."""
        self.policies[name] = (choice, why)
        self.unsure.append(f"{why}: policies.{name} is '{choice}'")

    def check_clock(self, column: ColumnProfile, guess: TimeGuess, given: str = "") -> None:
        """Declare a policy for times of the log, or of `given`, that are null or out of range."""
        if guess.doubt:
            self.unsure.append(guess.doubt)
        times = guessed_instants(column.values, guess)
        bad = int((~times.valid).sum())
        known = times.values[times.valid]
        bad += int(((known < 0) | (known > self.latest * UNITS["us"])).sum())
        if bad:
            place = given or self.roles.log.given
            words = f"{place}: {bad:,} times are null, negative or in the future"
            self.policy("bad_times", "drop", words)

    def check_numbers(self, table: TableProfile, column: ColumnProfile) -> None:
        """Declare a policy for infinite numbers."""
        infinite = float("inf")
        if column.type == "float" and not all(abs(value) < infinite for value in column.numbers):
            words = f"{table.given}: '{column.name}' holds infinite numbers"
            self.policy("infinite_numbers", "null", words)

    def feature_line(self, column: str, table: str, one: Suggestion, *, active: bool = True) -> str:
        """Return one entry of `features`, commented out where it is not used."""
        name = column if column not in self.names else f"{table}_{column}"
        spec: dict[str, object] = {"name": name, "table": table, "kind": one.kind or "categorical"}
        if name != column:
            spec["column"] = column
        line = f"- {flow({**spec, **one.options})}{f'   # {one.comment}' if one.comment else ''}"
        if not active or not one.kind:
            return f"# {line}"
        self.names.add(name)
        self.active[table] += 1
        kind = KINDS[one.kind]
        if issubclass(kind, Feature) and kind.is_category and not kind.has_several:
            self.categories[name] = (table, column)
        self.values += one.values
        self.autos += one.options.get("multiplicity") == "auto"
        return line

    def document(
        self,
        log: Sequence[str],
        sides: Mapping[str, Sequence[str]],
        split: Sequence[str],
        more: Sequence[str] = (),
    ) -> str:
        """Return the whole file.

        Args:
            log: lines of `schema.interactions`.
            sides: lines of the other tables in the schema.
            split: lines of `split`.
            more: further sections.
        """
        schema = ["interactions:", *(f"  {line}" for line in log)]
        for name, lines in sides.items():
            schema += [f"{name}:", *(f"  {line}" for line in lines)]
        schema += ["features:", *(f"  {line}" for line in self.features)]
        policies = [
            f"{entry(name, choice)}   # {why}" for name, (choice, why) in self.policies.items()
        ]
        rule = "what to do with rows that break a rule"
        parts = [
            "# Written by `recsys init` from the tables below. Look at it, then: recsys check FILE",
            section("data", self._paths()),
            section("policies", policies, rule) if policies else "",
            section("schema", schema),
            section("split", split),
            *more,
            section("embedding", [self._table(), *self.table_lines], "one table for all features"),
            "# The sections model, training, evaluation and tracking have defaults; every "
            "run\n# writes all of them next to its results."
            + ("" if more else " To change one:\n# training:\n#   epochs: 5"),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _paths(self) -> list[str]:
        roles = self.roles
        data = {"interactions": roles.log}
        if roles.items is not None:
            data["items"] = roles.items.table
        if roles.users is not None:
            data["users"] = roles.users.table
        paths = [entry(name, self._source(table)) for name, table in data.items()]
        if self.more_log is not None:
            paths[:1] = self._logs(self.more_log)
        elif roles.log.logs:
            each = [{"path": self._relative(log.path), "set": log.set_} for log in roles.log.logs]
            named = "   # read one after the other as one log, its rows by the names of the files"
            paths[:1] = [f"interactions:{named}", *(f"  - {flow(one)}" for one in each)]
        others = {side_name(key): self._source(key.table) for _, key in roles.sides}
        others |= {name: self._source(table) for name, table in self.relations.items()}
        if others:
            paths.append("others:")
            paths += [f"  {entry(name, source)}" for name, source in others.items()]
        if not roles.user:
            paths.append(
                "stream: true   # encoded to disk once, then read in pieces; needs no user or item"
            )
        return paths

    def _logs(self, more: MoreLog) -> list[str]:
        """Return the lines of two logs that are read as one."""
        lines = ["interactions:   # read one after the other as one log"]
        for table, columns, constants in (
            (self.roles.log, {}, more.first),
            (more.table, more.columns, more.constants),
        ):
            source = self._source(table)
            names = {"columns": columns, "set": constants}
            given = {name: dict(one) for name, one in names.items() if one}
            if given:
                source = {**(source if isinstance(source, dict) else {"path": source}), **given}
            lines.append(f"  - {flow(source)}")
        return lines

    def _source(self, table: TableProfile) -> str | dict[str, object]:
        """Return the path of a table, with its encoding where that was assumed."""
        path, encoding = self._relative(table.given), table.files.assumed_encoding
        return {"path": path, "encoding": encoding} if encoding else path

    def _relative(self, path: str) -> str:
        if self.relative_to is None or os.path.isabs(path) or is_remote(path):
            return path
        if is_remote(self.relative_to):  # which nothing of this machine is relative to
            return os.path.abspath(path)
        return os.path.relpath(path, self.relative_to)

    def _table(self) -> str:
        num_rows = self.table_rows or max(
            _LEAST_ROWS, 1 << max(0, 2 * self.values - 1).bit_length()
        )
        megabytes = num_rows * (_DIM + 1) * 4 / 1e6
        return (
            f"num_rows: {num_rows}   # the memory: {megabytes:,.1f} MB at {_DIM} numbers a row, "
            f"for {self.values:,} values"
        )


def side_name(key: Key) -> str:
    """Return what a further table is called in the configuration."""
    stem = Path(key.table.given).name.split(".")[0]
    return f"more_{stem}" if stem in ("interactions", "items", "users", "") else stem
