"""Rankers as two other libraries train them; runs in an environment of its own (`make peers`).

    python rivals.py PEER DATA SETTINGS

PEER is deepctr or fuxictr, DATA a folder of fields.npy (N, F) float64, label.npy (N,) float32 and
sizes.npy (F,) int64, the number of values of a field or 0 for numbers, with the same for the
validation and test rows where they exist; SETTINGS is JSON. Each line of standard input is an
order, answered by a line of JSON on standard output: "epoch" trains on all rows once with the
library's own loop, "load" only reads them as that loop does, "slower" divides the learning rate by
ten, "evaluate PART" predicts a part.

FuxiCTR's wheel holds its layers, losses and loops, its models stand in its repository alone: here
they are put together of the wheel's own parts (fuxictr_rankers.py).
"""

import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

torch.set_num_threads(1)


class DeepCtr:
    """DeepCTR-Torch: its AutoInt, compiled with Adam, trained by its `fit`."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from deepctr_torch.inputs import SparseFeat
        from deepctr_torch.models import AutoInt

        self.folder, self.settings = folder, settings
        sizes = np.load(folder / "sizes.npy")
        if not sizes.all():
            raise SystemExit("its attention reads categories alone: numbers must be buckets")
        columns = [
            SparseFeat(f"f{i}", int(size), embedding_dim=settings["dim"])
            for i, size in enumerate(sizes)
        ]
        self.model = AutoInt(
            columns if settings.get("first_order") else [],
            columns,
            att_layer_num=settings["layers"],
            att_head_num=settings["heads"],
            dnn_hidden_units=tuple(settings["hidden"]),
            dnn_use_bn=settings.get("batch_norm", False),
            dnn_dropout=settings.get("dropout", 0.0),
            l2_reg_embedding=settings.get("regularizer", 1e-5),
            seed=settings.get("seed", 0),
        )
        self.model.compile("adam", "binary_crossentropy", metrics=[])
        self.columns = self._columns("")
        self.label = np.load(folder / "label.npy")

    def _columns(self, prefix: str) -> dict[str, Any]:
        fields = np.load(self.folder / f"{prefix}fields.npy").astype(np.float32)
        return {f"f{i}": fields[:, i] for i in range(fields.shape[1])}

    def epoch(self) -> None:
        self.model.fit(
            self.columns, self.label, batch_size=self.settings["batch_size"], epochs=1, verbose=0
        )

    def slower(self) -> None:
        slow_down(self.model.optim)

    def load(self) -> None:
        """As `fit` reads."""
        columns = [column.reshape(-1, 1) for column in self.columns.values()]
        rows = torch.utils.data.TensorDataset(
            torch.from_numpy(np.concatenate(columns, axis=-1)), torch.from_numpy(self.label)
        )
        size = self.settings["batch_size"]
        for x, y in torch.utils.data.DataLoader(rows, shuffle=True, batch_size=size):
            x.float(), y.float()

    def predict(self, part: str) -> Any:
        return self.model.predict(self._columns(f"{part}_"), 8192).ravel()


class FuxiCtr:
    """FuxiCTR: its embedding, attention, perceptron and loop, its Adam."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from fuxictr.features import FeatureMap
        from fuxictr_rankers import Ranker

        self.folder, self.settings = folder, settings
        sizes = np.load(folder / "sizes.npy")
        self.map = FeatureMap("rows", str(folder))
        self.map.labels = ["label"]
        for i, size in enumerate(sizes):
            kind = {"type": "categorical", "vocab_size": int(size)} if size else {"type": "numeric"}
            self.map.features[f"f{i}"] = {"source": "", **kind}
        self.map.num_fields = len(sizes)
        self.map.set_column_index()
        torch.manual_seed(settings.get("seed", 0))
        self.model = Ranker(self.map, settings)
        self.scratch = tempfile.TemporaryDirectory()
        self.batches = self._loader("", shuffle=True)
        # What `fit` sets before its first `train_epoch`; no validation within an epoch.
        self.model._max_gradient_norm, self.model._eval_steps = 10.0, sys.maxsize
        self.model._total_steps, self.model._stop_training = 0, False

    def _loader(self, prefix: str, shuffle: bool) -> Any:
        from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader

        fields = np.load(self.folder / f"{prefix}fields.npy")
        columns = {f"f{i}": fields[:, i] for i in range(fields.shape[1])}
        path = Path(self.scratch.name) / f"{prefix}rows.npz"
        np.savez(path, label=np.load(self.folder / f"{prefix}label.npy"), **columns)
        size = self.settings["batch_size"]
        return NpzDataLoader(self.map, str(path), size, shuffle=shuffle, num_workers=0)

    def epoch(self) -> None:
        self.model.train_epoch(self.batches)

    def slower(self) -> None:
        slow_down(self.model.optimizer)

    def load(self) -> None:
        for _ in self.batches:
            pass

    def predict(self, part: str) -> Any:
        return self.model.predict(self._loader(f"{part}_", shuffle=False))


def slow_down(optimizer: Any) -> None:
    """Divide the learning rate by ten, as FuxiCTR's own loop does without progress."""
    for group in optimizer.param_groups:
        group["lr"] *= 0.1


def high_water_mib() -> int:
    """Largest resident memory of this process alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def main() -> None:
    peer, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")  # the libraries print: their words go elsewhere
    with contextlib.redirect_stdout(sys.stderr):
        rival = {"deepctr": DeepCtr, "fuxictr": FuxiCtr}[peer](folder, settings)
        for order in itertools.chain(["ready"], sys.stdin):
            verb, _, part = order.strip().partition(" ")
            started = time.process_time()
            if verb == "evaluate":
                np.save(folder / f"{peer}_{part}.npy", rival.predict(part))
            elif verb != "ready":
                {"epoch": rival.epoch, "load": rival.load, "slower": rival.slower}[verb]()
            answer = {"cpu": time.process_time() - started, "peak_mib": high_water_mib()}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
