"""A worker of a batch job: a process that writes the parts it is given until there are no more.

Its first message says what it works on; each further one is a part. It ends when the job closes
the pipe, or is gone. SIGTERM ends it in the middle of a part and leaves nothing of that behind.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import FrameType
from typing import Any

import pyarrow as pa

from recsys.core.remote.path import path_at
from recsys.serving.engines.messages import receive, send
from recsys.serving.engines.parts import write_part

DONE, FAILED = "done", "failed"
_TERMINATED = 143
Maker = Callable[[dict[str, Any], pa.Table | None], pa.Table]
"""Makes the content of a part from the message that asks for it."""


def serve(opened: Callable[[dict[str, Any]], AbstractContextManager[Maker]]) -> None:
    """Write parts as the process that started this one asks for them.

    Args:
        opened: returns what makes parts, from what the first message says of the job.
    """
    signal.signal(signal.SIGTERM, _end)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    asked = sys.stdin.buffer
    first = receive(asked)
    if first is None:
        return
    job, _ = first
    output, claim = path_at(job["output"]), job["claim"]
    with opened(job["spec"]) as make:
        while (message := receive(asked)) is not None:
            facts, table = message
            name = facts["part"]
            try:
                write_part(output / name, claim, partial(make, facts, table))
            except Exception:  # the job makes the part itself, and says what is wrong
                send(answers, {FAILED: name})
            else:
                send(answers, {DONE: name})


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(_TERMINATED)
