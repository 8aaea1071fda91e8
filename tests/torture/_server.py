"""A process that has everything imported and forks one child for each command it is told to run.

Started by `_faulty.Faulty` with `_faults.c` loaded; requests and answers are lines of JSON.
"""

import atexit
import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

KINDS = (1, 2, 4)
FAULTS = ctypes.CDLL(os.environ["LD_PRELOAD"])
FAULTS.faults_calls.restype = ctypes.c_long
FAULTS.faults_calls.argtypes = [ctypes.c_int]
FAULTS.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, *[ctypes.c_int] * 4]


def preload() -> None:
    """Import what commands import; no thread may run when a child is forked."""
    import lightgbm  # noqa: F401
    import mlflow  # noqa: F401
    import pyarrow as pa
    import torch

    import recsys.app.experiments
    import recsys.app.models
    import recsys.app.scoring
    import recsys.app.training
    import recsys.serving.registry
    import recsys.training.jobs.compare
    import recsys.training.jobs.evaluate
    import recsys.training.reports.retrieval  # noqa: F401

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    assert threading.active_count() == 1, threading.enumerate()


def child(request: dict[str, Any], calls: int, opened: int) -> None:
    """Run a command and end the process with its code, as the interpreter would."""
    from recsys.app.cli import main

    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    FAULTS.faults_note(opened)
    signal.alarm(request["alarm"])
    FAULTS.faults_arm(
        request["below"].encode(),
        *(request[name] for name in ("at", "action", "number", "once", "kinds")),
    )
    code: Any = 0
    try:
        main(request["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    os.pwrite(calls, json.dumps({kind: FAULTS.faults_calls(kind) for kind in KINDS}).encode(), 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def serve() -> None:
    """Answer every request with how the child ended and how many calls were counted."""
    preload()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that is printed is taken for an answer
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        calls, opened = os.memfd_create("calls"), os.memfd_create("opened")
        pid = os.fork()
        if pid == 0:
            child(request, calls, opened)
        _, status, used = os.wait4(pid, 0)
        counted = os.pread(calls, 256, 0).decode()
        paths = os.pread(opened, 1 << 24, 0).decode(errors="replace").splitlines()
        os.close(calls)
        os.close(opened)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "calls": json.loads(counted or "{}"),
            "opened": sorted(set(paths)),
            "seconds": used.ru_utime + used.ru_stime,
            "peak_mb": used.ru_maxrss / 1024,
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    Path(os.environ["TMPDIR"]).mkdir(exist_ok=True)
    serve()
