"""Compressed files, recognised by how they begin: their bytes as they were before."""

import lzma
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys.core.errors import DataError
from recsys.core.remote.faults import store_fault
from recsys.core.remote.path import RemotePath

_ARCHIVES = {b"PK\x03\x04": "a ZIP archive (or an Excel workbook)", b"\x1f\x9d": "a .Z file"}


@dataclass(frozen=True)
class Compression:
    """One compression: its name, how its files begin and are called, what opens them."""

    name: str
    magic: bytes
    ending: str
    opened: Callable[[Path], Any]


def _as_it_is(path: Path) -> pa.NativeFile:
    if isinstance(path, RemotePath):
        return path.source()
    return pa.input_stream(str(path), compression=None)


def _by_arrow(name: str, path: Path) -> pa.NativeFile:
    if isinstance(path, RemotePath):
        return pa.CompressedInputStream(path.source(), name)
    return pa.input_stream(str(path), compression=name)


def _by_lzma(path: Path) -> pa.NativeFile:
    # It closes what it opens itself; Arrow's file closes when nobody has it.
    return pa.input_stream(lzma.open(path.source() if isinstance(path, RemotePath) else path))


COMPRESSIONS: Mapping[str, Compression] = {
    one.name: one
    for one in (
        Compression("gzip", b"\x1f\x8b", ".gz", partial(_by_arrow, "gzip")),
        Compression("bz2", b"BZh", ".bz2", partial(_by_arrow, "bz2")),
        Compression("zstd", b"\x28\xb5\x2f\xfd", ".zst", partial(_by_arrow, "zstd")),
        Compression("xz", b"\xfd7zXZ\x00", ".xz", _by_lzma),
    )
}


def compression_of(path: Path) -> Compression | None:
    """Return the compression of a file by its first bytes; None: there is none.

    Raises:
        DataError: it is an archive of files.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    for magic, what in _ARCHIVES.items():
        if start.startswith(magic):
            raise DataError(
                f"{what}, not a table", file=path, remedy="unpack it, or save the sheet as CSV"
            )
    return next((one for one in COMPRESSIONS.values() if start.startswith(one.magic)), None)


@contextmanager
def plain_bytes(path: Path) -> Iterator[pa.NativeFile]:
    """Open a file for reading, decompressed where it is compressed.

    Raises:
        DataError: it is an archive, or its compressed bytes are damaged or cut off.
    """
    compression = compression_of(path)
    try:
        with _as_it_is(path) if compression is None else compression.opened(path) as stream:
            yield stream
    except (OSError, EOFError, lzma.LZMAError) as error:
        of_store = store_fault(path, error)
        if compression is None or of_store is not None:
            raise of_store or error from None
        raise DataError(
            f"its {compression.name} data are damaged or cut off ({str(error).splitlines()[0]})",
            file=path,
            remedy="copy or write the file again",
        ) from None


def name_without(path: Path) -> str:
    """Return the file's name in small letters, without the ending of a compression."""
    name = path.name.lower()
    for one in COMPRESSIONS.values():
        name = name.removesuffix(one.ending)
    return name
