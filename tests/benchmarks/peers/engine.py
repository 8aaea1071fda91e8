"""The engine's side of `autoint_epoch`: trains on order as `rivals.py` does.

    python engine.py FOLDER SETTINGS     SETTINGS: {"config": an experiment}

"epoch" goes once through the training rows with the engine's own loop, checkpoint included,
validation left out; "load" only reads the batches.
"""

import dataclasses
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from embedding_step import high_water_mib

from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.ranker.rows import open_rows
from recsys.training.families.ranker.task import ranking_task


class Engine:
    """One model and its rows."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.config = parse_config(raw, source="autoint_epoch")
        task = ranking_task(self.config, open_rows(self.config, World()), World())
        self.task = dataclasses.replace(task, validate=lambda: {"auc": 0.5})

    def epoch(self) -> None:
        with tempfile.TemporaryDirectory(prefix="autoint_epoch-") as folder:
            fit(self.task, self.config.training, Checkpoints(Path(folder)))

    def load(self) -> None:
        for _ in self.task.batches(0, 0):
            pass


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    engine = Engine(json.loads(sys.argv[2])["config"])
    for order in itertools.chain(["ready"], sys.stdin):
        started = time.process_time()
        if order.strip() != "ready":
            {"epoch": engine.epoch, "load": engine.load}[order.strip()]()
        answer = {"cpu": time.process_time() - started, "peak_mib": high_water_mib()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
