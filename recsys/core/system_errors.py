"""What the system refuses, in words: full disks, read-only folders, too little memory.

Libraries say it in their own ways: an `OSError` without a path, `os error 28` in a text, a
`RuntimeError` of an allocator. `system_error` finds the number of the error in any of them.
"""

import errno
import os
import re
import shutil
from pathlib import Path

from recsys.core.errors import UserError

_OS_ERROR = re.compile(r"os error (\d+)|[Ee]rrno (\d+)")
_REQUEST = re.compile(
    r"(?:tried|Tried|[Uu]nable) to allocate ([0-9.]+ ?[KMGTPE]?i?B|\d+ bytes)|malloc of size (\d+)"
)
_NO_MEMORY = re.compile(r"can't allocate memory|memory allocation failed|bad_alloc|out of memory")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""How numpy says that a disk is full."""
_OF_SQLITE = {
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    "disk I/O error": errno.EIO,
}
"""What SQLite says of a disk, in its own error or in those that MLflow and Optuna make of it."""
_REMEDIES = {
    errno.ENOSPC: "free some, or write to another disk",
    errno.EDQUOT: "free some, or write to another disk",
    errno.EFBIG: "raise the limit with `ulimit -f`, or write to another file system",
    errno.EROFS: "write to another folder",
    errno.EACCES: "change its permissions, or write to another folder",
    errno.EPERM: "change its permissions, or write to another folder",
    errno.EMFILE: "raise the limit with `ulimit -n`",
    errno.ENFILE: "close other programs, or raise the system's limit",
    errno.EIO: "the device is failing or gone: look at the system's log",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ESTALE: "the network file system lost the file: mount it again",
}
_LESS_MEMORY = (
    "use a machine with more, or ask for less at once: a smaller training.batch_size, "
    "embedding.num_rows or --batch-size"
)
_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT})


def system_error(error: BaseException) -> str | None:
    """Return what the system refused and what to do, in a line; None: it was not the system."""
    number, path = _number(error), getattr(error, "filename", None)
    if number in _REMEDIES:
        place = f"{os.fsdecode(path)}: " if isinstance(path, str | bytes | Path) else ""
        free = _free(path) if number in _OF_DISKS and path else ""
        return f"{place}{os.strerror(number).lower()}{free}; {_REMEDIES[number]}"
    found = _REQUEST.search(str(error))
    if found or isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        size = next((one for one in found.groups() if one), "") if found else ""
        size = f"{size} bytes" if size.isdigit() else size
        asked = f" at a request for {size}" if size else ""
        return f"out of memory{asked}; {_LESS_MEMORY}"
    return None


def with_path(error: BaseException, path: Path) -> BaseException:
    """Return an error of the system as an `OSError` that names `path`; any other as it is."""
    number = _number(error)
    if number not in _REMEDIES or getattr(error, "filename", None):
        return error
    return OSError(number, os.strerror(number), str(path))


def _number(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if not isinstance(error, Exception):
        return 0
    if isinstance(error, OSError) and _SHORT_WRITE.search(str(error)):
        return errno.ENOSPC
    text = str(error)
    found = _OS_ERROR.search(text)
    if found:
        return int(found[1] or found[2])
    return 0 if isinstance(error, UserError) else _number_of_sqlite(error)


def _number_of_sqlite(error: BaseException | None) -> int:
    """Return what SQLite met: Optuna's errors say nothing of it, what they are raised from does."""
    while error is not None:
        text = str(error)
        for said, number in _OF_SQLITE.items():
            if said in text:
                return number
        error = error.__cause__
    return 0


def _free(path: object) -> str:
    folder = Path(os.fsdecode(path))  # type: ignore[arg-type]
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        return f" ({shutil.disk_usage(folder).free / 1e6:,.1f} MB are free)"
    except OSError:
        return ""
