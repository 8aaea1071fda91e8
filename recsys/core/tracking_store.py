"""The location of MLflow's store, and which of its runs made a bundle.

Names, paths, locks and limits only: nothing here imports MLflow.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recsys.core.errors import ConfigError

DEFAULT_URI = "sqlite:///mlflow.db"
JOURNAL = "journal.jsonl"
"""In a run's folder: everything that was tracked; its first line says which run it is."""
RUN_KEY = "recsys.run_key"
"""Tag of a run in MLflow: the key in the first line of its journal, the same in every store."""
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_DIGEST_LENGTH = 36
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
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


def is_database(uri: str) -> bool:
    """Whether the store is a database that this process opens itself, and no server."""
    return uri.split("://")[0].split("+")[0] in _DATABASES


def run_of(bundle: Path) -> tuple[str, str] | None:
    """Return experiment and key of the run in whose folder `bundle` is; None: it is in none."""
    try:
        with (bundle.resolve().parent.parent / JOURNAL).open() as journal:
            first = json.loads(journal.readline())
        return str(first["experiment"]), str(first["key"])
    except (OSError, ValueError, KeyError):  # no journal, or one without a whole line
        return None


def dataset_fields(name: str, fingerprint: str, facts: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of MLflow's entity for a data set; its digest is our fingerprint, cut."""
    source = {"fingerprint": fingerprint}
    return {
        "name": name,
        "digest": fingerprint[:_DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps(source),
        "profile": json.dumps({**facts, **source}),
    }


def quieten() -> None:
    """Keep MLflow from printing to the output stream and from sending telemetry."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # It logs the traceback of every error of the database, and then raises the error.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@contextmanager
def http_limits(retries: int, timeout: int | None = None) -> Iterator[None]:
    """Bound MLflow's HTTP calls (7 retries and 120 s each by default), unless the user did.

    MLflow reads these from the environment at every call, and only there.

    Args:
        retries: of a call that fails.
        timeout: seconds of silence after which it fails; None: MLflow's.
    """
    limits = {_RETRIES: str(retries), **({} if timeout is None else {_TIMEOUT: str(timeout)})}
    ours = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def artifact_root(uri: str) -> str | None:
    """Return the folder for artifacts: mlruns next to a SQLite store; None: the server decides."""
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
