"""Addresses such as `s3://bucket/log.parquet` as paths, whose methods ask the store.

An address is read as a path of this machine is: `is_file`, `iterdir`, `open("rb")`, `read_text`.
What is written becomes one object at once, there whole or not at all. Libraries that open files by
their names get `readable(path)`.
"""

import fnmatch
import io
import os
import posixpath
import re
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

from recsys.core.errors import ConfigError
from recsys.core.remote.faults import endpoint_of, fault, no_bucket
from recsys.core.remote.stores import file_system, store_of

T = TypeVar("T")
_ADDRESS = re.compile(r"(?!models:|runs:)([a-z][a-z0-9+.-]+):/{1,3}(?=[^/])")
"""Of a path the second slash is lost: `Path("s3://bucket")` is "s3:/bucket"."""


@dataclass(frozen=True)
class Entry:
    """What a store has at an address: a file of some bytes, or a folder, whose size is 0."""

    path: "RemotePath"
    is_file: bool
    size: int


class RemotePath(PosixPath):
    """The address of a file or a folder in a store. Nothing is kept of what the store answers.

    Raises:
        UserError: of every method that asks: the store does not allow it or does not answer.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """Return the address with both slashes."""
        return _ADDRESS.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        """Return the address, which no system call knows."""
        return str(self)

    @property
    def scheme(self) -> str:
        """The kind of store, as in "s3"."""
        return self.parts[0].rstrip(":")

    @property
    def within(self) -> tuple[str, ...]:
        """The parts below the store: bucket, folders, name."""
        return self.parts[1:]

    @property
    def endpoint(self) -> str:
        """The address of the server, where a variable names one; else ""."""
        return endpoint_of(self.scheme)[1]

    def ask(self, question: Callable[[Any, str], T]) -> T:
        """Return what a question to the file system and its path answers, its errors in words."""
        try:
            system, root = file_system(self.scheme, self.parts[1] if len(self.parts) > 1 else "")
            key = posixpath.normpath("/".join(self.parts[2:])) if len(self.parts) > 2 else ""
            return question(system, f"{root}/{key}" if key else root or "/")
        except (OSError, ValueError) as error:
            raise fault(str(self), error) from None

    def entry(self) -> Entry | None:
        """Return what is there; None: nothing."""
        from pyarrow.fs import FileType

        if not self.within:
            return None

        def look(system: Any, path: str) -> Entry | None:
            (found,) = system.get_file_info([path])
            if found.type == FileType.NotFound:
                return None
            is_file = found.type == FileType.File
            return Entry(self, is_file, (found.size or 0) if is_file else 0)

        return self.ask(look)

    def entries(self, *, below: bool = False) -> list[Entry]:
        """Return what is in the folder, or anywhere below it, in order; none where it is none."""
        from pyarrow.fs import FileSelector, FileType

        def look(system: Any, path: str) -> list[Entry]:
            found = system.get_file_info(FileSelector(path, allow_not_found=True, recursive=below))
            start = len(path.rstrip("/")) + 1
            # Stores with folders keep an empty object for some: "folder/".
            named = [one for one in found if one.path[start:].strip("/")]
            return [
                Entry(
                    self.joinpath(*one.path[start:].split("/")),
                    one.type == FileType.File,
                    (one.size or 0) if one.type == FileType.File else 0,
                )
                for one in named
            ]

        return sorted(self.ask(look), key=lambda one: one.path.parts)

    def version(self) -> str:
        """Return what changes when the file does: the checksum that the store keeps of it.

        That of a copy in the same store is the same. Where none is kept, address, time and size.

        Raises:
            NotFoundError: there is no such file.
        """

        def look(system: Any, path: str) -> str:
            with system.open_input_stream(path, compression=None) as stream:
                said = {k.lower(): v for k, v in (stream.metadata() or {}).items()}
            tag = said.get("etag")
            if tag:
                return tag.decode().strip('"')
            if hasattr(system, "handler"):  # fsspec's
                return f"{self} {system.handler.fs.ukey(path)}"
            (found,) = system.get_file_info([path])
            return f"{self} {found.mtime_ns} {found.size}"

        return self.ask(look)

    def source(self) -> Any:
        """Return an open Arrow file, for libraries that take one in place of a name."""
        return self.ask(lambda system, path: system.open_input_file(path))

    def exists(self, **_: Any) -> bool:
        """Whether there is a file or a folder."""
        return self.entry() is not None

    def is_file(self, **_: Any) -> bool:
        """Whether there is a file."""
        found = self.entry()
        return found is not None and found.is_file

    def is_dir(self, **_: Any) -> bool:
        """Whether something is below."""
        found = self.entry()
        return found is not None and not found.is_file

    def is_symlink(self) -> bool:
        """Stores have no links."""
        return False

    def stat(self, **_: Any) -> os.stat_result:
        """Return the size of the file; a store knows no more."""
        found = self.entry()
        if found is None:
            raise FileNotFoundError(str(self))
        mode = stat.S_IFREG if found.is_file else stat.S_IFDIR
        return os.stat_result((mode, 0, 0, 0, 0, 0, found.size, 0, 0, 0))

    def resolve(self, strict: bool = False) -> "RemotePath":
        """Return the address; stores have no links, and no working folder."""
        return self

    def absolute(self) -> "RemotePath":
        """Return the address."""
        return self

    def expanduser(self) -> "RemotePath":
        """Return the address."""
        return self

    def iterdir(self) -> Generator["RemotePath", None, None]:
        """Yield what is in the folder."""
        yield from (one.path for one in self.entries())

    def glob(self, pattern: str, **_: Any) -> Generator["RemotePath", None, None]:
        """Yield what matches a pattern below the folder."""
        parts = tuple(str(pattern).split("/"))
        deep = len(parts) > 1
        yield from (
            one.path
            for one in self.entries(below=deep)
            if matches(one.path.parts[len(self.parts) :], parts)
        )

    def rglob(self, pattern: str, **_: Any) -> Generator["RemotePath", None, None]:
        """Yield what matches a pattern anywhere below the folder."""
        return self.glob(f"**/{pattern}")

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Do nothing: a folder is there as soon as something is in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        if not missing_ok or self.is_file():
            self.ask(lambda system, path: system.delete_file(path))

    def remove_folder(self) -> None:
        """Remove the folder with everything below it, and what a store keeps to mark it."""
        self.ask(lambda system, path: system.delete_dir(path))

    def open(self, mode: str = "r", *_: Any, **how: Any) -> Any:
        """Open the file for reading, at any place of it."""
        if set(mode) & set("wax+"):
            raise io.UnsupportedOperation(f"{self}: an object is written at once")
        if "b" in mode:
            return self.source()
        named = how.get("encoding")
        encoding = "utf-8" if named in (None, "locale") else named
        data = io.BytesIO(self.read_bytes())
        return io.TextIOWrapper(data, encoding, how.get("errors"), how.get("newline"))

    def read_bytes(self) -> bytes:
        """Return the content."""
        return self.ask(lambda system, path: _content(system, path))

    def write_bytes(self, data: Any) -> int:
        """Write the file, whole or not at all; return its size."""

        def write(system: Any, path: str) -> int:
            with system.open_output_stream(path, compression=None) as stream:
                stream.write(data)
            return len(data)

        return self.ask(write)

    def write_text(self, data: str, *_: Any, **how: Any) -> int:
        """Write a text."""
        return self.write_bytes(data.encode(how.get("encoding") or "utf-8"))

    def check_bucket(self) -> None:
        """Refuse an address whose bucket is not there, before any work is done.

        Buckets are made by people; a first folder, of stores without them, by whoever writes.

        Raises:
            NotFoundError: it is not.
        """
        if store_of(self.scheme) is None:
            return
        if len(self.within) > 1 and not RemotePath(*self.parts[:2]).exists():
            raise no_bucket(str(self))


def _content(system: Any, path: str) -> bytes:
    with system.open_input_stream(path, compression=None) as stream:
        data: bytes = stream.read()
    return data


def path_at(given: str | os.PathLike[str]) -> Path:
    """Return a path as it is given: of this machine, or the address of a store.

    `file://` is this machine. `models:/` and `runs:/` are no addresses.
    """
    text = str(given)
    found = _ADDRESS.match(text)
    if found is None or isinstance(given, RemotePath):
        return given if isinstance(given, Path) else Path(text)
    if found[1] == "file":
        return Path("/" + unquote(text[found.end() :]))
    if found[1] in ("hdfs", "viewfs") and text.startswith(f"{found[1]}:///"):
        text = f"{found[1]}://default/{text[found.end() :]}"
    return RemotePath(text)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of a store."""
    return isinstance(path_at(path), RemotePath)


def below(folder: Path, given: str | os.PathLike[str]) -> Path:
    """Return a path that is relative to `folder`; an address and an absolute one stay as they are.

    A relative path in a folder of a store is an address, its `..` taken out.
    """
    path = path_at(given)
    if isinstance(path, RemotePath) or path.is_absolute() or not isinstance(folder, RemotePath):
        return path if isinstance(path, RemotePath) else folder / path
    inside = posixpath.normpath("/".join((*folder.within[1:], *path.parts)))
    return RemotePath(*folder.parts[:2], inside)


def here(given: str | os.PathLike[str], key: str, why: str) -> Path:
    """Return a path that has to be on this machine.

    Raises:
        ConfigError: it is the address of a store; `key` and `why` say what cannot be there.
    """
    path = path_at(given)
    if isinstance(path, RemotePath):
        raise ConfigError(f"{key}: {path}: {why}; name a folder of this machine")
    return path


def readable(path: Path) -> Any:
    """Return what a library reads that opens files by name: of a store an open file."""
    return path.source() if isinstance(path, RemotePath) else path


def matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the parts of a path match those of a pattern; `**` is any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return matches(parts, pattern[1:]) or (bool(parts) and matches(parts[1:], pattern))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and matches(parts[1:], pattern[1:])
    )
