"""Checkpoints that are whole or absent, and a resume that is bit-identical.

A checkpoint is a folder `step-<n>` with the dense tensors (safetensors), the table
(`recsys.embeddings.shards_on_disk`, one file a rank), with `training.average_epochs` the average
of both, the loop's state (JSON), and a list of these files with their sha256. It is written
under another name, flushed to the disk, and renamed; the last two and the best stay. One that
was written by several ranks opens on any other number of them. Nothing is parsed before its bytes
were verified; where the newest is damaged, a resumed run continues from the one before.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from recsys.core.atomic import publish, remove_whole, staged_folder, sweep
from recsys.core.errors import IntegrityError
from recsys.core.hashed_files import HashedFiles, entry_of
from recsys.core.sealed import seal, sealed
from recsys.embeddings.shards_on_disk import load_table, save_table
from recsys.embeddings.table import Table
from recsys.training.engine.averaging import WeightAverage
from recsys.training.engine.ranks import ALONE, World
from recsys.training.engine.run_home import send_checkpoint

_PREFIX = "step-"
_AGAIN = "start the training anew"
_log = logging.getLogger(__name__)


@dataclass
class LoopState:
    """The progress of a training; all of it is in a checkpoint."""

    epoch: int = 0
    step: int = 0
    """Steps done in `epoch`."""
    global_step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    bad_evaluations: int = 0
    finished: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    """What was logged: a mapping a point, with "step" and "epoch" among its keys."""
    running_loss: float = 0.0
    running_weight: float = 0.0
    epoch_loss: float = 0.0
    """Sum over the examples of `epoch` so far."""
    epoch_weight: float = 0.0
    """Examples of `epoch` so far."""


@dataclass(frozen=True)
class Trained:
    """Everything that a step changes: the model, its table, the optimizer.

    The table is not saved in `tensors`, for it may be sharded. head: what only the training
    needs (`training.self_supervision`), in the optimizer and not in the model. average: of the
    weights of model and table, where these are evaluated and kept.
    """

    model: nn.Module
    table: Table
    optimizer: torch.optim.Optimizer
    head: nn.Module | None = None
    average: WeightAverage | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return all state but the table's as named tensors on the CPU."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.head is not None:
            named |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        if self.average is not None:
            named |= {f"average.{name}": value for name, value in self.average.tensors().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
        return {name: value.detach().cpu().contiguous() for name, value in named.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        self.model.load_state_dict(_below("model.", tensors))
        if self.head is not None:
            self.head.load_state_dict(_below("head.", tensors))
        if self.average is not None:
            self.average.load(_below("average.", tensors))
        whole = self.optimizer.state_dict()
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                states.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict({**whole, "state": states})


def _write_dense(trained: Trained, state: LoopState, folder: Path) -> list[Path]:
    """Write what only the first rank writes; return the files."""
    tensors, loop = folder / "tensors.safetensors", folder / "state.json"
    tensors.write_bytes(save(trained.tensors()))
    loop.write_text(json.dumps(asdict(state)))
    return [tensors, loop]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


class Checkpoints:
    """The checkpoints of one run, in `folder`; all ranks of `world` save and load together."""

    def __init__(self, folder: Path, world: World = ALONE) -> None:
        self.folder = folder
        self.world = world

    def save(self, trained: Trained, state: LoopState) -> Path:
        """Write a checkpoint at `state.global_step`; then remove those no longer needed."""
        target = self._path(state.global_step)
        with self._staging(target.name) as staging:
            written = [save_table(trained.table, staging / "table")]
            if trained.average is not None:
                written.append(save_table(trained.average.rows, staging / "average"))
            if self.world.is_first:
                written += _write_dense(trained, state, staging)
            listed = self._list(staging, written)
            if self.world.is_first:
                seal(staging, listed)
                if target.exists():  # the same step twice: a pure function of the data
                    remove_whole(target)
                publish(staging, target)
                self._drop_old(state)
            self.world.wait()
        if self.world.is_first:
            send_checkpoint(self.folder)
        return target

    def _list(self, folder: Path, written: Sequence[Path]) -> list[dict[str, Any]]:
        """Return what the list of `folder` says of the files of all ranks; each hashes its own."""
        own = [json.dumps(entry_of(path, folder)) + "\n" for path in written]
        codes = torch.tensor(list("".join(own).encode()), dtype=torch.uint8)
        lines = bytes(self.world.collect(codes).tolist()).decode().splitlines()
        return [json.loads(line) for line in lines]

    @contextmanager
    def _staging(self, name: str) -> Iterator[Path]:
        """Yield the folder that all ranks write to; the first rank makes and removes it."""
        if not self.world.is_first:
            yield Path(self.world.tell(""))
            return
        with staged_folder(self.folder, name) as staging:
            self.world.tell(str(staging))
            yield staging

    def sweep(self) -> None:
        """Remove what a killed process left of writing or removing checkpoints."""
        sweep(self.folder)
        for left in self.folder.glob(f".{_PREFIX}*"):
            sweep(left.with_name(left.name[1:].split(".")[0]))

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending."""
        names = [path.name for path in self.folder.glob(f"{_PREFIX}*") if path.is_dir()]
        return sorted(int(name.removeprefix(_PREFIX)) for name in names)

    def load(self, trained: Trained, step: int) -> LoopState:
        """Put checkpoint `step` into `trained` and return the loop's state.

        Raises:
            IntegrityError: a file is not what was written; on every rank.
        """
        folder = self._path(step)
        files = self._verified(folder)
        try:
            tensors = load(files.read("tensors.safetensors"))
            raw: dict[str, Any] = json.loads(files.read("state.json"))
        except (OSError, ValueError, SafetensorError) as error:
            raise IntegrityError(f"checkpoint {folder} cannot be read: {error}") from None
        trained.load(tensors)
        load_table(trained.table, folder / "table")
        if trained.average is not None:
            load_table(trained.average.rows, folder / "average")
        return LoopState(**raw)

    def load_latest(self, trained: Trained) -> LoopState | None:
        """Put the newest whole checkpoint into `trained`; None where there is none at all.

        Raises:
            IntegrityError: there are some, and each is damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.load(trained, step)
            except IntegrityError as error:
                if step == steps[0]:
                    raise
                if self.world.is_first:
                    _log.warning("%s; continuing from the checkpoint before", error)
        return None

    def _verified(self, folder: Path) -> HashedFiles:
        """Return the files of a checkpoint, each verified by one of the ranks.

        Raises:
            IntegrityError: one is not what was written; on every rank.
        """
        files, why = None, None
        try:
            files = sealed(folder, "checkpoint", _AGAIN)
            files.check(self.world.rank, self.world.size)
        except (OSError, IntegrityError) as error:
            why = error
        (damaged,) = self.world.sum(float(why is not None))
        if damaged or files is None:
            raise IntegrityError(str(why or f"checkpoint {folder}: another rank found it damaged"))
        return files

    def clear(self) -> None:
        """Remove every checkpoint: the run is finished and its bundle written."""
        remove_whole(self.folder)

    def _path(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:09d}"

    def _drop_old(self, state: LoopState) -> None:
        for step in self.steps()[:-2]:
            if step != state.best_step:
                remove_whole(self._path(step))

    @classmethod
    def of_run(cls, run_dir: Path, world: World = ALONE) -> Self:
        """Return the checkpoints of the run in `run_dir`."""
        return cls(run_dir / "checkpoints", world)
