"""Folders of table formats that keep old files: Delta is read, Iceberg and Hudi are refused.

The data files that lie in such a folder are not the table: rows that were changed or deleted are
in files that the format's own log has taken out. Read as a plain folder they would count again.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from recsys.core.errors import ConfigError, DataError
from recsys.core.remote.path import RemotePath

_DELTA = "_delta_log"
_HUDI = ".hoodie"
_ICEBERG = "metadata/*.metadata.json"
_EXPORT = "write the table as it is now to Parquet files in a folder of their own, and give that"


@dataclass(frozen=True)
class Lake:
    """The files of one version of a table; each with the values of its partition columns."""

    files: Mapping[Path, Mapping[str, str | None]]
    version: str


def lake_at(path: Path) -> Lake | None:
    """Return the files that a folder's own log names; None: the folder has none.

    Raises:
        ConfigError: the library that reads the format is not installed.
        DataError: the format, or a feature of this table, is not read; or its log is broken.
    """
    name = format_of_lake(path)
    if name == "Delta":
        return _delta(path)
    if name:
        raise DataError(
            f"a table of Apache {name}, which is not read as it is", file=path, remedy=_EXPORT
        )
    return None


def refuse_in_lake(root: Path, files: list[Path]) -> None:
    """Refuse files of a table whose log may have taken them out.

    `root`: the folder that was given, or in which a pattern or a file is.

    Raises:
        DataError: one is in a folder of Delta, Iceberg or Hudi.
    """
    checked: set[Path] = set()
    for file in files:
        for folder in file.parents:
            if folder in checked:
                break
            checked.add(folder)
            name = format_of_lake(folder)
            if name:
                raise lake_file(folder, file, name)
            above_root = folder != root and root not in folder.parents
            if above_root and "=" not in folder.name and folder.name != "data":
                break


def _there(folder: Path) -> set[Path] | None:
    """Return the files below the folder of a store, asked for at once; None: of this machine."""
    if not isinstance(folder, RemotePath):
        return None
    return {one.path for one in folder.entries(below=True) if one.is_file}


def lake_file(folder: Path, file: Path, name: str) -> DataError:
    """Return the error for a file in the folder of a lake, whose log may have taken it out."""
    return DataError(
        f"a file of the {name} table {folder}, whose log says which files still count",
        file=file,
        remedy=f"give the folder {folder} itself" if name == "Delta" else _EXPORT,
    )


def format_of_lake(folder: Path) -> str:
    """Return the format of the lake that a folder is, as in "Delta"; "": it is none."""
    if (folder / _DELTA).is_dir():
        return "Delta"
    if (folder / _HUDI).is_dir():
        return "Hudi"
    return "Iceberg" if any(folder.glob(_ICEBERG)) else ""


def _delta(folder: Path) -> Lake:
    if importlib.util.find_spec("deltalake") is None:
        raise ConfigError(
            f"{folder} is a Delta table; to read it the package deltalake is needed, which is not "
            "installed: pip install 'recsys-engine[delta]'"
        )
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(
            str(folder) if isinstance(folder, RemotePath) else folder.resolve().as_uri(),
            storage_options=_options(folder),
        )
        _refuse_features(table, folder)
        actions = pa.table(table.get_add_actions()).to_pylist()
        version = f"delta {table.version()}"
    except (DeltaError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"a Delta table whose log cannot be read ({reason})",
            file=folder,
            remedy=f"mend {_DELTA}; or {_EXPORT}",
        ) from None
    files = {
        _file(folder, action["path"]): {
            name: _text(value) for name, value in (action.get("partition") or {}).items()
        }
        for action in actions
    }
    there = _there(folder)
    for path in files:
        if path not in there if there is not None else not path.is_file():
            raise DataError(
                "a file of the Delta table that is not there",
                file=path,
                remedy="restore it, or repair the table's log (FSCK REPAIR TABLE)",
            )
    if not files:
        raise DataError("the Delta table holds no file", file=folder, remedy="give another version")
    return Lake(dict(sorted(files.items())), version)


def _options(folder: Path) -> dict[str, str] | None:
    """Return what the library needs to be told of a store; the rest it takes from the environment.

    A server of one's own answers to http where its address says so.
    """
    if not isinstance(folder, RemotePath) or not folder.endpoint.startswith("http://"):
        return None
    return {"allow_http": "true", "endpoint": folder.endpoint}


def _refuse_features(table: Any, folder: Path) -> None:
    """Refuse what the Parquet files alone do not show: deleted rows, columns of other names."""
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise DataError(
            f"a Delta table with column mapping ({mapping}), which is not read",
            file=folder,
            remedy=_EXPORT,
        )
    features = table.protocol().reader_features or []
    if "deletionVectors" in features and pa.table(table.deletion_vectors()).num_rows:
        raise DataError(
            "a Delta table with deletion vectors: its files still hold deleted rows",
            file=folder,
            remedy="remove them (REORG TABLE ... APPLY (PURGE), or DeltaTable.optimize.compact())",
        )


def _file(folder: Path, written: str) -> Path:
    """Return the path of a data file, which the log keeps percent-encoded."""
    if "://" in written or written.startswith("file:"):
        raise DataError(
            f"a Delta table with a file elsewhere ({written})", file=folder, remedy=_EXPORT
        )
    return folder / unquote(written)


def _text(value: object) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
