"""Start the ranks of a run on this machine, watch them, and say what happened to the first to fail.

The ranks are `recsys train --resume RUN_DIR` under torch's elastic agent, as torchrun would
start them; on several machines torchrun does this module's work (docs/several-machines.md).
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.core.signals import ending_signals
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loopback import talk_over_loopback
from recsys.training.engine.ranks import LOST_PEER

LOG = logging.getLogger(__name__)

_TAIL_LINES = 20
_SHUTDOWN_SECONDS = 120
"""How long the ranks have for their checkpoint after a signal, before they are killed."""


def launch(run_dir: Path, workers: int, arguments: tuple[str, ...]) -> int:
    """Run `recsys train --resume run_dir` in `workers` processes; return the exit code.

    The first rank talks to the terminal, the others write to `run_dir/ranks`. A rank that
    fails ends all; its own message is printed, and the code returned is its own (128 + the
    signal's number where a signal ended it). What ends a run is passed on to the ranks.
    Whatever listens for connections listens on 127.0.0.1 alone.

    Raises:
        ConfigError: this platform has no agent that could start them, or no loopback interface.
    """
    try:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        from recsys.training.engine.rendezvous import BACKEND
    except ImportError as error:
        raise ConfigError(f"--workers: this build of torch cannot start ranks: {error}") from None
    talk_over_loopback()
    # Each rank has its share of the cores, and the agent's own lines would hide the rank's.
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logs = run_dir / "ranks"
    logs.mkdir(exist_ok=True)
    quiet: Any = {rank: Std.ALL for rank in range(1, workers)} | {0: Std.NONE}
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=workers,
        run_id=run_dir.name,
        rdzv_backend=BACKEND,
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        # torch would take SIGHUP back from nohup.
        signals_to_handle=",".join(one.name for one in (*ending_signals(), signal.SIGQUIT)),
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=quiet),
    )
    command = ("-m", "recsys.app.cli", "train", "--resume", str(run_dir), *arguments)
    try:
        elastic_launch(settings, sys.executable)(*command)
    except ChildFailedError as error:
        return _explain(error.failures, run_dir, workers)
    except SignalException as error:
        LOG.info(_how_to_go_on(run_dir, workers))
        return 128 + int(error.sigval)
    return 0


def _explain(failures: dict[int, Any], run_dir: Path, workers: int) -> int:
    """Name the rank that failed first, not those that failed because of it."""
    own = {rank: one for rank, one in failures.items() if one.exitcode != LOST_PEER} or failures
    rank, failure = min(own.items(), key=lambda pair: pair[1].timestamp)
    code = int(failure.exitcode)
    if code < 0:
        LOG.info(f"rank {rank} was ended by signal {-code} ({failure.signal_name()})")
        code = 128 - code
    elif rank > 0 and (0 not in own or own[0].exitcode != code):  # the first rank said it itself
        LOG.info(f"rank {rank} failed with exit code {code}; its last lines:")
        LOG.info(_last_words(run_dir / "ranks", rank))
    LOG.info(_how_to_go_on(run_dir, workers))
    return code


def _how_to_go_on(run_dir: Path, workers: int) -> str:
    again = f"recsys train --resume {run_dir} --workers {workers}"
    steps = Checkpoints.of_run(run_dir).steps()
    if not steps:
        return f"no checkpoint was written yet; start again with: {again}"
    return f"step {steps[-1]} has a checkpoint; continue with: {again} (or another number)"


def _last_words(logs: Path, rank: int) -> str:
    """Return the end of what the rank wrote, of its newest start."""
    files = sorted(logs.glob(f"*/attempt_0/{rank}/stderr.log"), key=lambda p: p.stat().st_mtime)
    if not files:
        return "(nothing was written)"
    lines = files[-1].read_text(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
