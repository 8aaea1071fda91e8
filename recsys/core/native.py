"""Loops that torch has no operator for: C++ files next to the code, compiled where they first run.

A machine with a C++ compiler (`CXX`, else `c++`) compiles a file once in a second or two, for its
own processor, into `$XDG_CACHE_HOME/recsys` (`~/.cache/recsys`). Without a compiler, or with
`RECSYS_NATIVE=0`, the caller gets the same numbers from torch, only slower; what dropout draws is
another sample.

Not `torch.utils.cpp_extension`: it needs ninja and compiles torch's headers, 25 CPU seconds instead
of 1.8 the first time and 0.2 instead of less than 0.01 each time after, and a library built into
the wheel would not be compiled for the processor in use.
"""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from recsys.core.atomic import whole_file

FLAGS = ("-O3", "-fno-math-errno", "-march=native", "-shared", "-fPIC")
T = TypeVar("T")
_log = logging.getLogger(__name__)


@functools.cache
def native_library(source: Path, **sizes: int) -> ctypes.CDLL | None:
    """Return the functions of `source`, compiled with `sizes` as macros; None: not available.

    A size `head_dim` is the macro HEAD_DIM.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or os.environ.get("RECSYS_NATIVE") == "0":
        return None
    command = [compiler, *FLAGS, *_macros(sizes), str(source)]
    try:
        path = _cache() / f"{source.stem}-{_key(source, command)}.so"
        if not path.exists():
            _compile(command, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("%s runs on torch, slower: %s", source.stem, error)
        return None


def in_parallel(num_rows: int, call: Callable[[slice], T], multiple: int = 1) -> list[T]:
    """Call with slices of the rows, one for each of torch's threads; return what came, in order.

    multiple: what the length of every slice but the last is a multiple of.
    """
    blocks = max(-(-num_rows // multiple), 1)
    size = -(-blocks // min(torch.get_num_threads(), blocks)) * multiple
    slices = [slice(start, start + size) for start in range(0, max(num_rows, 1), size)]
    if len(slices) == 1:
        return [call(slices[0])]
    with ThreadPoolExecutor(len(slices)) as pool:
        return list(pool.map(call, slices))


def _macros(sizes: Mapping[str, int]) -> list[str]:
    return [f"-D{name.upper()}={size}" for name, size in sizes.items()]


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _key(source: Path, command: list[str]) -> str:
    """A home may be shared by machines: what decides the code is all in the name."""
    capabilities = str(sorted(torch.cpu.get_capabilities().items()))
    said = [*command[:-1], capabilities, source.read_text()]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]


def _compile(command: list[str], path: Path) -> None:
    """Compile to `path`, which is there whole or not at all: others may do so at once."""
    with whole_file(path) as staging:
        subprocess.run([*command, "-o", str(staging)], check=True, capture_output=True)
