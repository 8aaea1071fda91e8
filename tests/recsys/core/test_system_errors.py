"""What the system refuses is said in a line with the path, whichever library met it."""

import errno
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from recsys.core.atomic import staged_folder, whole_file
from recsys.core.errors import ConfigError
from recsys.core.system_errors import system_error, with_path


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 128 kB."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


NUMBERS = np.random.default_rng(0).standard_normal(1 << 17)
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x" * (1 << 20)),
    "numpy": lambda path: NUMBERS.tofile(path),
    "parquet": lambda path: pq.write_table(pa.table({"a": NUMBERS}), path),
    "safetensors": lambda path: save_file({"a": torch.from_numpy(NUMBERS)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_nothing_is_left(small_disk: Path, writer: str) -> None:
    def write() -> None:
        with whole_file(small_disk / "out") as staging:
            WRITERS[writer](staging)

    def write_folder() -> None:
        with staged_folder(small_disk, "out") as staging:
            WRITERS[writer](staging / "a")

    for write_one in (write, write_folder):
        with pytest.raises(OSError, match="No space left on device") as caught:
            write_one()
        assert caught.value.errno == errno.ENOSPC
        words = system_error(caught.value)
        assert words is not None
        assert words.startswith(f"{small_disk / 'out'}: no space left on device (0.")
        assert words.endswith("MB are free); free some, or write to another disk")
        assert os.listdir(small_disk) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "x", "/a/b"), "/a/b: read-only file system; write to another folder"),
        (OSError(errno.EMFILE, "x"), "too many open files; raise the limit with `ulimit -n`"),
        (RuntimeError("I/O error: (os error 5)"), "input/output error; the device is failing"),
        (MemoryError(), "out of memory; use a machine with more"),
        (
            RuntimeError("CPUAllocator: can't allocate memory: you tried to allocate 7 bytes"),
            "out of memory at a request for 7 bytes; use",
        ),
        (MemoryError("Unable to allocate 7.28 TiB for an array"), "at a request for 7.28 TiB; use"),
        (ValueError("a value"), None),
        (OSError(errno.ENOENT, "x", "/a"), None),
    ],
)
def test_errors_of_the_system_in_words(error: Exception, words: str | None) -> None:
    found = system_error(error)
    assert found == words if words is None else words in str(found)


def test_a_real_request_for_too_much_memory_is_understood() -> None:
    for ask in (lambda: np.ones(1 << 50), lambda: torch.ones(1 << 50)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            ask()
        assert "out of memory at a request for" in str(system_error(caught.value))


def test_only_errors_of_the_system_get_a_path() -> None:
    plain, named = ValueError("x"), OSError(errno.ENOSPC, "x", "/there")
    assert with_path(plain, Path("/a")) is plain
    assert with_path(named, Path("/a")) is named
    error = with_path(OSError(errno.ENOSPC, "x"), Path("/a"))
    assert isinstance(error, OSError)
    assert error.filename == "/a"


def test_what_sqlite_met_is_found_behind_the_errors_of_others() -> None:
    def raised() -> None:
        try:
            raise sqlite3.OperationalError("database or disk is full")
        except sqlite3.OperationalError as error:
            raise RuntimeError("An exception is raised during the commit.") from error

    with pytest.raises(RuntimeError) as found:
        raised()
    assert str(system_error(found.value)).startswith("no space left on device; free some")
    readonly = sqlite3.OperationalError("attempt to write a readonly database")
    assert str(system_error(readonly)).startswith("read-only file system")
    assert system_error(sqlite3.OperationalError("no such table: runs")) is None


def test_an_error_that_a_user_was_given_stays_what_it_is() -> None:
    def refused() -> None:
        try:
            raise sqlite3.OperationalError("database or disk is full")
        except sqlite3.OperationalError as error:
            raise ConfigError("tune.db: full") from error

    with pytest.raises(ConfigError) as found:
        refused()
    assert with_path(found.value, Path("x")) is found.value
