"""Folders that jobs write, distinguished from files by their names before any work is done."""

from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.remote.path import RemotePath

FILE_SUFFIXES = frozenset(
    {
        *(".arrow", ".avro", ".csv", ".feather", ".ipc", ".json", ".jsonl", ".orc", ".parq"),
        *(".parquet", ".pq", ".tsv", ".txt", ".xls", ".xlsx", ".yaml", ".yml"),
        *(".db", ".gz", ".html", ".npy", ".npz", ".onnx", ".png", ".sqlite", ".svg", ".zip"),
        ".zst",
    }
)
"""A new folder that ends in one of these was meant as a file; `.1` or `.2026` was not."""


def check_folder(path: Path, holds: str) -> Path:
    """Return `path`, the folder that a job writes; refuse it where it is, or is named as, a file.

    A folder that is there already is let through, whatever its name: the job finds out whose it is.

    Args:
        path: where the job is to write.
        holds: what is in the folder afterwards, for the message: "Parquet parts".

    Raises:
        ConfigError: a file is there, or the name ends as those of files do.
        NotFoundError: it is the address of a store that has no such bucket.
    """
    if isinstance(path, RemotePath):
        path.check_bucket()
    if path.is_dir():
        return path
    if path.exists():
        raise ConfigError(f"{path} is a file; the output is a folder of {holds}: name a folder")
    suffix = path.suffix.lower()
    if suffix in FILE_SUFFIXES:
        raise ConfigError(
            f"{path}: the output is a folder of {holds}, not a {suffix} file; leave out the "
            f"ending: {path.with_suffix('')}"
        )
    return path
