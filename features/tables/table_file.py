"""One file of a table, as its header describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from recsys.core.errors import DataError
from recsys.core.strict import nearest
from recsys.features.tables.dialect import Dialect
from recsys.features.tables.sources import LogSource


@dataclass(frozen=True)
class File:
    """One file: its own columns, and those that its folders' names give.

    dialect, encoding: of a CSV file. declared: those that are declared, and other names of columns;
    part of what the rows are. said: what was recognised that a person may want to know. called:
    name of a column in the table -> its name in the file, where that is another one. groups: the
    row groups of a Parquet file that are read; None: all.
    """

    path: Path
    columns: tuple[str, ...]
    partitions: Mapping[str, str | None]
    dialect: Dialect = Dialect()
    encoding: str = "utf-8"
    declared: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[int, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The file's own columns, by their names in the table."""
        own = {name: shown for shown, name in self.called.items()}
        return tuple(own.get(name, name) for name in self.columns)

    def own(self, name: str) -> str:
        """Return what a column of the table is called in the file."""
        return self.called.get(name, name)


def as_in_log(file: File, source: LogSource) -> File:
    """Return the file with the names that its columns have in the log, and those that are set.

    Raises:
        DataError: it lacks a column that is to be called otherwise, or has one that is to be set.
    """
    for shown, own in source.columns.items():
        if own not in file.columns:
            raise DataError(
                f"no such column{nearest(own, list(file.columns))}; its columns are "
                f"{', '.join(file.columns)}",
                file=file.path,
                column=own,
                remedy=f"correct the name of '{shown}' in data.interactions, under 'columns'",
            )
    found = replace(file, called=source.columns)
    refuse_twins(file.path, found.names)
    for name in source.set_:
        if name in (*found.names, *file.partitions):
            raise DataError(
                "the file has this column, and data.interactions sets it",
                file=file.path,
                column=name,
                remedy="leave it out under 'set'",
            )
    constants = {name: None if one is None else str(one) for name, one in source.set_.items()}
    said = (
        *(f"{a}={b}" for a, b in source.columns.items()),
        *(f"{a}:{b}" for a, b in constants.items()),
    )
    partitions = {**file.partitions, **constants}
    return replace(found, partitions=partitions, declared=(*file.declared, *said))


def refuse_twins(path: Path, names: Sequence[str]) -> None:
    """Refuse two columns of one name; those without a name cannot be asked for.

    Raises:
        DataError: there are two.
    """
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"two columns are named '{twice[0]}'", file=path, remedy="rename one of them"
        )
