"""The engine's model of sessions, an epoch on order.

    python session_engine.py CONFIG

CONFIG is a configuration whose paths are set. Each line "train" of standard input trains one epoch,
"evaluate" gives NDCG@10 on the validation rows, "count" trains one more epoch and counts its matrix
products (multiplications and additions) beside what the thread does a CPU second in a 1024^3
product; each is answered by a line of JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.loop import Task
from recsys.training.engine.machine import autocast, keep_freed_memory
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.registry import family_of

_PEAK_SIZE = 1024


def answers(path: Path, orders: Iterable[str]) -> Iterator[dict[str, float]]:
    """Yield the answer to each order, for the configuration at `path`."""
    keep_freed_memory()
    torch.set_num_threads(1)
    config = load_config(path)
    task = family_of(config).open(config, Given()).task()
    for epoch, line in enumerate(orders):
        yield ANSWERS[line.strip()](task, config, epoch)


def main() -> None:
    for answer in answers(Path(sys.argv[1]), sys.stdin):
        print(json.dumps(answer), flush=True)


def train(task: Task[Any], config: ExperimentConfig, epoch: int) -> dict[str, float]:
    model, optimizer = task.trained.model, task.trained.optimizer
    start, targets = time.process_time(), 0
    for batch in task.batches(epoch, 0):
        model.train()
        loss = task.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm)
        optimizer.step()
        targets += len(batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"cpu_s": time.process_time() - start, "memory_mib": peak, "targets": targets}


def evaluate(task: Task[Any], config: ExperimentConfig, epoch: int) -> dict[str, float]:
    return dict(task.validate())


def count(task: Task[Any], config: ExperimentConfig, epoch: int) -> dict[str, float]:
    with FlopCounterMode(display=False) as counter:
        train(task, config, epoch)
    a, b = torch.randn(2, _PEAK_SIZE, _PEAK_SIZE)
    with autocast(config.training.precision, torch.device("cpu")):
        torch.mm(a, b)
        start = time.process_time()
        for _ in range(20):
            torch.mm(a, b)
    peak = 20 * 2 * _PEAK_SIZE**3 / (time.process_time() - start)
    return {"products": counter.get_total_flops(), "peak_a_cpu_s": peak}


ANSWERS = {"train": train, "evaluate": evaluate, "count": count}


if __name__ == "__main__":
    main()
