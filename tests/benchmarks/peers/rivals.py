"""AutoInt as two other libraries train it; runs in an environment of its own (`make peers`).

    python rivals.py PEER DATA SETTINGS

PEER is deepctr or fuxictr, DATA a folder of fields.npy (N, F) float64, label.npy (N,) float32 and
sizes.npy (F,) int64, the number of values of a field or 0 for numbers, with the same for the
validation and test rows where they exist; SETTINGS is JSON. Each line of standard input is an
order, answered by a line of JSON on standard output: "epoch" trains on all rows once with the
library's own loop, "load" only reads them as that loop does, "evaluate PART" predicts a part.

FuxiCTR's wheel holds its layers, losses and loops, its AutoInt stands in its repository alone:
here the model is put together of the wheel's own parts.
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

SEED = 0
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
            seed=SEED,
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

        self.folder, self.settings = folder, settings
        sizes = np.load(folder / "sizes.npy")
        self.map = FeatureMap("rows", str(folder))
        self.map.labels = ["label"]
        for i, size in enumerate(sizes):
            kind = {"type": "categorical", "vocab_size": int(size)} if size else {"type": "numeric"}
            self.map.features[f"f{i}"] = {"source": "", **kind}
        self.map.num_fields = len(sizes)
        self.map.set_column_index()
        torch.manual_seed(SEED)
        self.model = fuxictr_model(self.map, settings)
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

    def load(self) -> None:
        for _ in self.batches:
            pass

    def predict(self, part: str) -> Any:
        return self.model.predict(self._loader(f"{part}_", shuffle=False))


def fuxictr_model(feature_map: Any, settings: dict[str, Any]) -> Any:
    """Return AutoInt, or DCN-V2 where `settings` ask for it, of FuxiCTR's parts."""
    from fuxictr.pytorch.layers import (
        CrossNetV2,
        FeatureEmbedding,
        MLP_Block,
        ScaledDotProductAttention,
    )
    from fuxictr.pytorch.models import BaseModel
    from torch import nn

    dim, heads, hidden = settings["dim"], settings["heads"], settings["hidden"]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
            self.attend = ScaledDotProductAttention()

        def forward(self, x: Any) -> Any:
            q, k, v = (
                part(x).view(len(x), -1, heads, dim // heads).transpose(1, 2)
                for part in (self.q, self.k, self.v)
            )
            mixed, _ = self.attend(q, k, v)
            return (mixed.transpose(1, 2).flatten(2) + x).relu()

    class Ranker(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                feature_map,
                embedding_regularizer=settings.get("regularizer"),
                model_root=str(tempfile.gettempdir()),
                metrics=["AUC"],
                verbose=0,
            )
            self.embedding_layer = FeatureEmbedding(feature_map, dim)
            width = feature_map.num_fields * dim
            self.is_dcn = bool(settings.get("dcn"))
            if self.is_dcn:
                self.interact = CrossNetV2(width, settings["layers"])
            else:
                self.interact = nn.Sequential(*(Attention() for _ in range(settings["layers"])))
            self.fc = nn.Linear(width, 1)
            self.dnn = (
                MLP_Block(width, hidden_units=hidden, hidden_activations="ReLU", output_dim=1)
                if hidden
                else None
            )
            self.compile("adam", "binary_crossentropy", settings["learning_rate"])
            self.reset_parameters()
            self.model_to_device()

        def forward(self, inputs: Any) -> Any:
            fields = self.embedding_layer(self.get_inputs(inputs))
            seen = fields.flatten(1) if self.is_dcn else fields
            logit = self.fc(self.interact(seen).flatten(1))
            if self.dnn is not None:
                logit = logit + self.dnn(fields.flatten(1))
            return {"y_pred": self.output_activation(logit)}

    return Ranker()


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
                {"epoch": rival.epoch, "load": rival.load}[verb]()
            answer = {"cpu": time.process_time() - started, "peak_mib": high_water_mib()}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
