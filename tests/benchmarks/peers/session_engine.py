"""The engine's model of sessions, an epoch on order.

    python session_engine.py CONFIG

CONFIG is a configuration whose paths are set. Each line "train" of standard input trains one epoch,
"judge" gives NDCG@10 on the validation rows; either is answered by a line of JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from training.config import load_config
from training.distributed import World
from training.machine import keep_freed_memory
from training.retrieval_job import RetrievalJob


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    config = load_config(Path(sys.argv[1]))
    task = RetrievalJob(config, World(), lambda folder, request: None).task()
    model, optimizer = task.trained.model, task.trained.optimizer
    for epoch, line in enumerate(sys.stdin):
        start, targets = time.process_time(), 0
        if line.strip() == "judge":
            print(json.dumps(task.validate()), flush=True)
            continue
        for batch in task.batches(epoch, 0):
            model.train()
            loss = task.loss(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm)
            optimizer.step()
            targets += len(batch)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found = {"cpu_s": time.process_time() - start, "memory_mib": peak, "targets": targets}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
