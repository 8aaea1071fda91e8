"""The engine's side of `retrieval_peers`: a two-tower trained on order, as `retrieval_rivals.py`.

    python retrieval_engine.py FOLDER SETTINGS     SETTINGS: {"config": an experiment}

"train N" takes the next N steps (0: as many as an epoch has) with the engine's own loop, one
checkpoint included, validation left out; "evaluate" returns recall@20 on validation rows.
"""

import dataclasses
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from embedding_step import high_water_mib

from recsys.data.batch import PairBatch
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import VALIDATION
from recsys.models.two_tower import TwoTower
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.load import parse_config
from recsys.training.families.loading import load_data
from recsys.training.families.retrieval.validation import rank_with
from recsys.training.families.two_tower.task import two_tower_task

K = 20


class Engine:
    """One two-tower and the batches that it has still to see."""

    def __init__(self, raw: dict[str, Any]) -> None:
        config = parse_config(raw, source="retrieval_peers")
        self.data = load_data(config)
        self.queries = build_queries(
            self.data,
            VALIDATION,
            history_length=config.model.history_length,
            filter_seen=True,
            limit=self.data.num_users,
            seed=0,
        )
        self.config = config
        self.task = two_tower_task(config, self.data, self.queries, World())
        self.stream, self.pairs = self._endless(), 0

    def _endless(self) -> Iterator[PairBatch]:
        for epoch in itertools.count():
            yield from self.task.batches(epoch, 0)

    def _next(self, count: int) -> Iterator[PairBatch]:
        for batch in itertools.islice(self.stream, count):
            self.pairs += len(batch)
            yield batch

    def train(self, count: int) -> dict[str, float]:
        count = count or self.task.num_steps
        self.pairs = 0
        task = dataclasses.replace(
            self.task,
            num_steps=count,
            batches=lambda _epoch, _first: self._next(count),
            validate=lambda: {self.config.training.metric: 0.5},
        )
        with tempfile.TemporaryDirectory(prefix="retrieval_peers-") as folder:
            fit(task, self.config.training, Checkpoints(Path(folder)))
        return {"steps": count, "steps_an_epoch": self.task.num_steps, "pairs": self.pairs}

    def evaluate(self) -> dict[str, float]:
        model = self.task.trained.model
        assert isinstance(model, TwoTower)
        top = rank_with(model, self.data, self.queries, K, True)
        found = ranking_metrics(top, self.queries.relevant, (K,))
        return {"recall": float(found[f"recall_at_{K}"].mean())}


def answers(raw: dict[str, Any], orders: Iterable[str]) -> Iterator[dict[str, float]]:
    """Yield the answer to each order; the first one, to none, says that the rows are read."""
    torch.set_num_threads(1)
    keep_freed_memory()
    engine = Engine(raw)
    before = high_water_mib()
    for order in itertools.chain(["ready"], orders):
        verb, _, count = order.strip().partition(" ")
        started, found = time.process_time(), {}
        if verb == "train":
            found = engine.train(int(count))
        elif verb == "evaluate":
            found = engine.evaluate()
        cpu = time.process_time() - started
        yield {"cpu": cpu, "peak_mib": high_water_mib(), "loaded_mib": before, **found}


def main() -> None:
    for answer in answers(json.loads(sys.argv[2])["config"], sys.stdin):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
