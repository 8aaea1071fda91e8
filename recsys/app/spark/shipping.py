"""A model on the way to Spark's workers: in one archive, unpacked once an executor."""

import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from recsys.app.batch_function import BatchFunction
from recsys.app.spark.session import is_local
from recsys.core.errors import ConfigError

_BUNDLE, _TABLES = "bundle", "tables"


def shipped(spark: Any, function: BatchFunction, ship: bool | None) -> str | None:
    """Return the name of the archive that workers have the model in; None: they read its folder.

    Args:
        spark: the session.
        function: the model.
        ship: whether to send it; None: unless the workers are on this machine.

    Raises:
        ConfigError: a table of the function cannot be sent.
    """
    if not (not is_local(spark) if ship is None else ship):
        return None
    archive = _packed(function)
    name = archive.stem
    try:
        context = spark.sparkContext
    except Exception:  # a session of Spark Connect has no context
        spark.addArtifacts(f"{archive}#{name}", archive=True)
    else:
        context.addArchive(f"{archive}#{name}")
    return name


def received(function: BatchFunction, name: str | None) -> BatchFunction:
    """Return the function as a worker calls it."""
    if name is None:
        return function
    from pyspark import SparkFiles

    root = Path(SparkFiles.get(name))
    tables = {}
    for table, given in function.tables.items():
        if isinstance(given, str) and "://" not in given:
            tables[table] = str(root / _TABLES / table / Path(given).name)
    return function.at(root / _BUNDLE / function.model_id, tables)


def _packed(function: BatchFunction) -> Path:
    """Return an archive of the bundle and of the tables that are files of this machine."""
    path = _folder() / f"recsys-{function.key[:16]}.zip"
    if path.is_file():
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, Path(function.folder), f"{_BUNDLE}/{function.model_id}")
        for name, given in function.tables.items():
            if isinstance(given, str) and "://" not in given:
                if not Path(given).exists():
                    raise ConfigError(
                        f"{given}: a file or a folder is sent to the workers, and this is neither: "
                        f"give {name} as one of them, or as a data frame"
                    )
                _add(archive, Path(given), f"{_TABLES}/{name}/{Path(given).name}")
    return path


def _add(archive: zipfile.ZipFile, source: Path, inside: str) -> None:
    if source.is_file():
        archive.write(source, inside)
        return
    for path in sorted(source.rglob("*")):
        if path.is_file():
            archive.write(path, f"{inside}/{path.relative_to(source).as_posix()}")


@cache
def _folder() -> Path:
    """Return the folder of this process's archives, which goes with it."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="recsys-spark-"))
    return Path(_KEPT[0].name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
