"""One file of a table, as its header describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import DataError


@dataclass(frozen=True)
class File:
    """One file: its own columns, and those that its folders' names give.

    declared: encoding and delimiter, where they are declared; part of what the rows are.
    """

    path: Path
    columns: tuple[str, ...]
    partitions: Mapping[str, str | None]
    delimiter: str = ","
    encoding: str = "utf-8"
    declared: tuple[str, ...] = ()


def refuse_twins(path: Path, names: Sequence[str]) -> None:
    """Refuse two columns of one name.

    Raises:
        DataError: there are two.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"two columns are named '{twice[0]}'", file=path, remedy="rename one of them"
        )
