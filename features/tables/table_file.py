"""One file of a table, as its header describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import DataError
from recsys.features.tables.dialect import Dialect


@dataclass(frozen=True)
class File:
    """One file: its own columns, and those that its folders' names give.

    dialect, encoding: of a CSV file. declared: those that are declared, part of what the rows
    are. said: what was recognised that a person may want to know.
    """

    path: Path
    columns: tuple[str, ...]
    partitions: Mapping[str, str | None]
    dialect: Dialect = Dialect()
    encoding: str = "utf-8"
    declared: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


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
