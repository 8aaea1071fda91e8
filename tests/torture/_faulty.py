"""Runs commands that are killed, refused or interrupted at the n-th change of a file.

    with Faulty(scratch) as faulty:
        faulty.run(folder, ["init", "log.parquet"], fault=KILL.at(3))

Where the C library cannot be stood in front of (no Linux, no compiler), `Faulty.missing` says why.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
MAKES, WRITES, MOVES = 1, 2, 4
"""Kinds of calls: create and resize; write; flush, rename and remove."""


@dataclass(frozen=True)
class Fault:
    """What happens at which call. once: so many calls in a row fail; 0: all from there on."""

    name: str
    action: int
    number: int = 0
    once: int = 0
    kinds: int = MAKES | WRITES | MOVES
    call: int = 0

    def at(self, call: int) -> "Fault":
        """Return the fault at the n-th call, counted from 1."""
        return replace(self, call=call)


NOTHING = Fault("nothing", 0)
KILL = Fault("SIGKILL", 1)
TERMINATE = Fault("SIGTERM", 2, signal.SIGTERM)
INTERRUPT = Fault("SIGINT", 2, signal.SIGINT)
NO_SPACE = Fault("ENOSPC", 3, 28, kinds=MAKES | WRITES)
READ_ONLY = Fault("EROFS", 3, 30, kinds=MAKES | MOVES)
BROKEN_DISK = Fault("EIO", 3, 5, once=1)
TOO_MANY_FILES = Fault("EMFILE", 3, 24, once=3, kinds=MAKES)
REFUSALS = (NO_SPACE, READ_ONLY, BROKEN_DISK, TOO_MANY_FILES)
SIGNALS = (TERMINATE, INTERRUPT)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; of a signal that ended it the negative number.
        calls: kind -> how many; of a killed one nothing is known.
        opened: paths that were opened to be written, as they were named.
        seconds: of the processor.
        peak_mb: most memory, what was imported before it began among it.
    """

    code: int
    calls: dict[str, int]
    opened: list[str]
    seconds: float
    peak_mb: float
    out: str
    err: str


class Faulty:
    """Runs commands of the engine in processes of their own, without importing anew."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.scratch.mkdir(parents=True, exist_ok=True)
        library = scratch / "faults.so"
        compiler = shutil.which("cc") or "cc"
        source = str(HERE / "_faults.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"], check=True
        )
        self.temporary = scratch / "tmp"
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "_server.py")],
            env=environment,
            cwd=scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    @staticmethod
    def missing() -> str:
        """Return what this machine lacks; empty: nothing."""
        if not sys.platform.startswith("linux"):
            return "calls of the C library are counted on Linux alone"
        return "" if shutil.which("cc") else "no C compiler (cc)"

    def run(
        self,
        folder: Path,
        arguments: list[str],
        fault: Fault = NOTHING,
        alarm: int = 600,
    ) -> Ended:
        """Run `recsys ARGUMENTS` in `folder`, with a fault in what it does below it.

        alarm: seconds after which it is killed, with the exit code -14.
        """
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        out, err = self.scratch / "out", self.scratch / "err"
        request = {
            "folder": str(folder),
            "below": str(folder),
            "arguments": arguments,
            "environment": {},
            "out": str(out),
            "err": str(err),
            "at": fault.call,
            "action": fault.action,
            "number": int(fault.number),
            "once": fault.once,
            "kinds": fault.kinds,
            "alarm": alarm,
        }
        assert self._server.stdin is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        texts = {"out": "", "err": ""}
        answer = self._answer()
        for name, path in (("out", out), ("err", err)):
            texts[name] = path.read_text(errors="replace")
        return Ended(**answer, **texts)

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, f"the server ended with {self._server.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> "Faulty":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()
