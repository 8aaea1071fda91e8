"""Several processes that train as one: their ranks, and what they send each other.

Every rank draws the same global batch and works on its share of it; losses are shares of the
global mean, so gradients are *summed* over ranks, and one process or many end with the same
numbers. The table has its own traffic (`recsys.embeddings.sharded`); what goes through here are
the dense gradients, item vectors, and a few numbers a step.
"""

import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.training.engine.loopback import connect, is_loopback, open_store, talk_over_loopback
from recsys.training.engine.machine import pick_device

LOST_PEER = 75
"""Exit code of a rank that stopped because another one did (EX_TEMPFAIL)."""

LAST_WORDS_SECONDS = 90.0
"""How long such a rank leaves the one that failed to report, before it ends as well."""

_TIMEOUT, _LONG_TIMEOUT = timedelta(minutes=30), timedelta(days=7)
_PR_SET_PDEATHSIG = 1


class LostPeerError(RuntimeError):
    """Another rank failed or is gone; its own message says why."""


@dataclass(frozen=True)
class World:
    """This process among `size` ranks; alone by default, where every call costs nothing."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    patient: dist.ProcessGroup | None = None
    """The same ranks, for waits that may take hours."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files and talks to the user."""
        return self.rank == 0

    def share(self, count: int) -> Tensor:
        """Return which of `count` rows are this rank's in order, (ceil(count / size),) int64.

        The same number on every rank: past the end the last row is repeated, and `gather` with
        `count` cuts it off.
        """
        step = -(-count // self.size)
        rows = torch.arange(self.rank * step, (self.rank + 1) * step)
        return rows.clamp(max=count - 1)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """Return the rows of all ranks in order, (count, ...), with gradient.

        Args:
            rows: (n, ...) of this rank, where it has rows [rank * step, rank * step + n) of
                `count`, step = ceil(count / size).
            count: rows of all ranks.
        """
        if self.size == 1:
            return rows[:count]
        gathered: Tensor = _Gather.apply(rows, count, self)  # type: ignore[no-untyped-call]
        return gathered

    def collect(self, rows: Tensor) -> Tensor:
        """Return the rows (n, ...) of all ranks, n as it may be on each, without gradient."""
        if self.size == 1:
            return rows
        sizes = [int(size) for size in self._all(torch.tensor([len(rows)], device=self.device))]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:]).to(self.device)
        padded[: len(rows)] = rows
        parts = self._all(padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)]).to(rows.device)

    def sum(self, *values: float) -> list[float]:
        """Return each number summed over ranks."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace the gradient of every trainable parameter by its sum over ranks."""
        if self.size == 1:
            return
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trainable:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in trainable if parameter.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def wait(self) -> None:
        """Return when every rank is here."""
        self.sum(0.0)

    @contextmanager
    def first_before_others(self, needed: bool = True) -> Iterator[None]:
        """Let the first rank run the block alone, then all others: it writes what they read."""
        waits = needed and self.size > 1
        if waits and not self.is_first:
            dist.barrier(self.patient)
        yield
        if waits and self.is_first:
            dist.barrier(self.patient)

    def tell(self, text: str) -> str:
        """Return the first rank's `text` on every rank."""
        if self.size == 1:
            return text
        code = text.encode() if self.is_first else b""
        (length,) = (int(n) for n in self.sum(len(code)))
        sent = torch.zeros(length, dtype=torch.uint8, device=self.device)
        if self.is_first:
            sent.copy_(torch.tensor(list(code), dtype=torch.uint8))
        dist.broadcast(sent, src=0)
        return bytes(sent.tolist()).decode()

    def _all(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return parts


ALONE = World()
"""One process by itself, on the CPU."""


def join(device: str = "auto") -> World:
    """Join the ranks that torchrun (or `recsys train --workers`) started; alone without them.

    Raises:
        ConfigError: the variables of torchrun are not whole.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device=pick_device(device))
    names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set: start the ranks with "
            "`recsys train CONFIG --workers N` or with torchrun"
        )
    here = pick_device(device)
    if here.type == "cuda":
        here = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(here)
    _end_with_the_agent()
    _say_less()
    if not dist.is_initialized():
        _join_group("nccl" if here.type == "cuda" else "gloo", int(os.environ["RANK"]), size)
    patient = dist.new_group(backend="gloo", timeout=_LONG_TIMEOUT)
    return World(dist.get_rank(), dist.get_world_size(), here, patient)


def _join_group(backend: str, rank: int, size: int) -> None:
    """Join torch's process group; where all ranks run here, over the loopback interface alone."""
    if not is_loopback(os.environ["MASTER_ADDR"]):
        dist.init_process_group(backend, timeout=_TIMEOUT)
        return
    talk_over_loopback()
    port = int(os.environ["MASTER_PORT"])
    kept_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    hosts = rank == 0 and not kept_by_agent
    store = open_store(port, _TIMEOUT) if hosts else connect(port, _TIMEOUT)
    dist.init_process_group(backend, timeout=_TIMEOUT, store=store, rank=rank, world_size=size)


def ranks_here(world: World) -> int:
    """Return how many of the ranks run on this machine; all, where the starter does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world.size)) if world.size > 1 else 1


def leave(world: World) -> None:
    """Part from the other ranks, at the end of a run that went well."""
    if world.size > 1 and dist.is_initialized():
        dist.barrier(world.patient)  # the first rank may be evaluating for hours
        dist.destroy_process_group()


def peer_is_lost(error: BaseException) -> bool:
    """Whether `error` says no more than that another rank is gone."""
    if isinstance(error, LostPeerError | dist.DistBackendError | dist.DistNetworkError):
        return True
    if not isinstance(error, RuntimeError) or not dist.is_initialized():
        return False
    text = str(error)
    return any(word in text for word in ("Connection closed by peer", "gloo", "Gloo", "NCCL"))


def _end_with_the_agent() -> None:
    """Have the kernel send SIGTERM when the agent that started this rank is gone (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _say_less() -> None:
    """Leave out what torch says of itself at every step of TorchRec's."""
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+_tensor` is deprecated")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


class _Gather(torch.autograd.Function):
    """All ranks' rows forward; the gradients of all ranks for this rank's rows back."""

    @staticmethod
    def forward(ctx: object, rows: Tensor, count: int, world: World) -> Tensor:
        step = -(-count // world.size)
        ctx.start, ctx.num_rows, ctx.world = world.rank * step, len(rows), world  # type: ignore[attr-defined]
        padded = rows.new_zeros(step, *rows.shape[1:])
        padded[: len(rows)] = rows
        return torch.cat(world._all(padded))[:count]

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor | None, ...]:
        start, num_rows = ctx.start, ctx.num_rows  # type: ignore[attr-defined]
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        own = total.new_zeros(num_rows, *total.shape[1:])
        real = total[start : start + num_rows]
        own[: len(real)] = real
        return own, None, None
