"""Talks to processes that train on order: a peer's library in its environment, or the engine."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _harness import Benchmark
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PEERS = ("deepctr", "fuxictr")
RETRIEVAL_PYTHON = ROOT / ".venv-peers-retrieval" / "bin" / "python"
RETRIEVAL_PEERS = ("bpr", "lightfm", "dssm")
FITTED_PEERS = ("cosine", "ease")
ALLOCATOR = {  # what `recsys.training.engine.machine.keep_freed_memory` sets
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Here:
    """Answers orders in this process, as a `Trainer` does from one of its own (`--smoke`)."""

    def __init__(
        self, name: str, answers: Callable[[Iterable[str]], Iterator[dict[str, float]]]
    ) -> None:
        self.name, self._order = name, ""
        self._answers = answers(iter(lambda: self._order, None))

    def order(self, order: str) -> dict[str, float]:
        """Return the answer."""
        self._order = order
        return next(self._answers)

    def close(self) -> None:
        pass


class Trainer:
    """A process that trains one model; `order` waits for its answer.

    keeps_memory: whether a peer runs with the allocator setting that the engine makes itself.
    """

    def __init__(
        self, name: str, folder: Path, settings: dict[str, Any], *, keeps_memory: bool = False
    ) -> None:
        if name in PEERS:
            command = [str(PYTHON), str(HERE / "rivals.py"), name]
        elif name in (*RETRIEVAL_PEERS, *FITTED_PEERS):
            command = [str(RETRIEVAL_PYTHON), str(HERE / "retrieval_rivals.py"), name]
        elif name.startswith("two_tower"):
            command = [sys.executable, str(HERE / "retrieval_engine.py")]
        else:
            command = [sys.executable, str(HERE / "engine.py")]
        paths = f"{ROOT}{os.pathsep}{HERE.parent}"
        self.name, self.words = name, tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*command, str(folder), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env={
                **os.environ,
                **(ALLOCATOR if keeps_memory else {}),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": paths,
            },
        )
        self._answer()

    def order(self, order: str) -> dict[str, float]:
        """Return the CPU seconds it took and the largest memory so far."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.communicate(timeout=60)
        self.words.close()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.words.seek(0)
            sys.exit(f"{self.name} ended:\n{self.words.read()[-2000:]}")
        found: dict[str, float] = json.loads(line)
        return found


def peers_are_there(benchmark: Benchmark, python: Path = PYTHON) -> bool:
    """Whether peers can run; says why not, and how to set their environment up."""
    if benchmark.smoke:
        print("peers are left out: --smoke runs the engine's side alone")
        return False
    if not python.exists():
        print(f"peers are left out: no {python.relative_to(ROOT)}; `make peers` sets it up")
    return python.exists()


def number(columns: list[pd.Series], is_number: list[bool]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return fields (N, F) float64, values numbered from 0, and how many each has (0: numbers)."""
    fields, sizes = [], []
    for column, plain in zip(columns, is_number, strict=True):
        values = column if plain else pd.factorize(column)[0]
        fields.append(np.asarray(values, np.float64))
        sizes.append(0 if plain else int(fields[-1].max()) + 1)
    return np.stack(fields, axis=1), np.array(sizes)


def write_part(folder: Path, prefix: str, fields: NDArray[Any], label: NDArray[Any]) -> None:
    """Write one part as `rivals.py` reads it."""
    np.save(folder / f"{prefix}fields.npy", fields)
    np.save(folder / f"{prefix}label.npy", label.astype(np.float32))
