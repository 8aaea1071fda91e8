"""Where MLflow's store lies. Names, paths and locks only: nothing here imports MLflow."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.core.errors import ConfigError

DEFAULT_URI = "sqlite:///mlflow.db"
_SQLITE = re.compile(r"sqlite:///([^?]+)(\?.*)?")


def store_uri(uri: str | None) -> str:
    """Return the store to use: `uri`, else MLFLOW_TRACKING_URI, else mlflow.db in this folder.

    A SQLite path becomes absolute, so that the store stays the same after a change of folder.

    Raises:
        ConfigError: a folder is named; MLflow no longer keeps runs in plain folders.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    found = _SQLITE.fullmatch(chosen)
    if found:
        return f"sqlite:///{Path(found[1]).absolute()}{found[2] or ''}"
    if chosen.startswith("file:") or ("://" not in chosen and chosen != "databricks"):
        raise ConfigError(
            f"tracking uri '{chosen}': MLflow refuses folders as stores; use {DEFAULT_URI} or the "
            "http address of a server"
        )
    return chosen


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of a SQLite store, None for other stores."""
    found = _SQLITE.fullmatch(uri)
    return Path(found[1]) if found else None


def artifact_root(uri: str) -> str | None:
    """Return the folder for artifacts: mlruns beside a SQLite store; None: the server decides."""
    path = sqlite_path(uri)
    return None if path is None else str(path.parent / "mlruns")


@contextmanager
def first_use(uri: str) -> Iterator[None]:
    """Hold the store's lock: two processes that create the tables at once would both fail."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield
