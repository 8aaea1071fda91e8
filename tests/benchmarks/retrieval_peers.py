"""Training a two-tower beside implicit's and RecTools' models: CPU time, memory, recall.

    gowalla   check-ins, ids only, the published training rows
    ml1m      MovieLens-1M, ratings of at least 4, ids only; of each user all but the last two

The engine's two-tower with its defaults (rows, sampled softmax) and with whole users and the full
softmax, each with and without one round of smoothing; implicit's BPR; LightFM with WARP and DSSM
through RecTools. 64 numbers a vector, one thread, no features but the ids. Each trains with its
own loop in a process of its own, reading included; rounds are taken in turn, CPU time is counted.

An epoch sees every training pair once; of `users` every user once, with 50 pairs at most after a
random cut; of DSSM every user once, with one pair: see `pairs_an_epoch`. The engine multiplies in
bfloat16 where the processor does; the peers in float32. Memory: the largest resident memory, less
what was resident before the first step as `training_mib`.

    --set data=ml1m        one of the data sets (default gowalla,ml1m)
    --set steps=40         at most so many steps of the engine a round, scaled to an epoch; 0: all
    --set rounds=3         rounds that count, after a short one to warm up
    --set budget=60        instead: recall@20 on the held-out rows after so many CPU seconds each
                           (saved as retrieval_peers_recall)
    --set models=bpr,...   some of them

Needs the data on loan (RECSYS_DATA) and the peers' environment (`make peers`).
"""

import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _harness import Benchmark
from _loaned import loaned
from numpy.typing import NDArray
from peers.process import RETRIEVAL_PEERS, RETRIEVAL_PYTHON, Here, Trainer, peers_are_there
from peers.retrieval_engine import answers

from recsys.data.batch import Jagged
from recsys.retrieval.topk import exact_topk
from recsys.training.evaluation.evaluate import ranking_metrics

K, DIM = 20, 64
USERS: dict[str, Any] = {"examples": "users", "loss": "full_softmax"}
SMOOTHED: dict[str, Any] = {"smoothing": {"rounds": 1}}
ENGINE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "two_tower": ({}, {}),
    "two_tower users": ({}, USERS),
    "two_tower smoothed": (SMOOTHED, {}),
    "two_tower users smoothed": (SMOOTHED, USERS),
}
ONE_A_USER = "dssm"


def write_rows(name: str, folder: Path) -> None:
    """Write the log with its parts for the engine, and its pairs by number for the peers."""
    if name == "gowalla":
        log = pq.read_table(loaned("gowalla") / "interactions.parquet")
        user, item = (np.asarray(log[column]) for column in ("user_id", "item_id"))
        part = np.where(np.asarray(log["split"]) == "train", "train", "validation")
        # The engine wants a test row, and nothing here looks at it.
        part[np.flatnonzero(part == "validation")[-1]] = "test"
        position = np.arange(len(user))
    else:
        log = pq.read_table(loaned("ml-1m") / "ratings.parquet")
        position, rating = np.asarray(log["position"]), np.asarray(log["rating"])
        kept = np.flatnonzero((position >= 0) & (rating >= 4))
        kept = kept[np.lexsort((position[kept], np.asarray(log["user_id"])[kept]))]
        user, item = (np.asarray(log[column])[kept] for column in ("user_id", "movie_id"))
        position = position[kept]
        last = np.append(user[1:] != user[:-1], True)
        before_last = np.append(last[1:], False) & ~last
        part = np.where(last, "test", np.where(before_last, "validation", "train"))
    columns = {"user_id": user, "item_id": item, "position": position, "part": part}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    known = [np.unique(ids) for ids in (user, item)]
    rows = np.stack(
        [np.searchsorted(ids, own) for ids, own in zip(known, (user, item), strict=True)]
    )
    for one in ("train", "validation"):
        np.save(folder / f"{one}.npy", np.unique(rows[:, part == one], axis=1))
    np.save(folder / "sizes.npy", [len(ids) for ids in known])


def config_of(name: str, folder: Path, variant: str) -> dict[str, Any]:
    """Return the experiment of one of the engine's variants."""
    model, training = ENGINE[variant]
    roles = {"user": "user_id", "item": "item_id"}
    if name == "ml1m":
        roles["order"] = "position"
    return {
        "data": {"interactions": str(folder / "log.parquet")},
        "schema": {
            "interactions": roles,
            "features": [
                {"name": "item_id", "table": "items", "kind": "categorical"},
                {"name": "user_id", "table": "users", "kind": "categorical"},
            ],
        },
        "split": {"kind": "column", "column": "part"},
        "model": {"kind": "two_tower", "dim": DIM, **model},
        "training": {"epochs": 1, "warmup_steps": 0, "checkpoint_every": 10**6, **training},
    }


def trainer(bench: Benchmark, name: str, folder: Path, model: str) -> Trainer | Here:
    """Start the process that trains one of them."""
    if model not in ENGINE:
        return Trainer(model, folder, {"dim": DIM})
    raw = config_of(name, folder, model)
    if not bench.smoke:
        return Trainer(model, folder, {"config": raw})
    here = Here(model, partial(answers, raw))
    here.order("ready")
    return here


def recall(folder: Path, peer: str) -> float:
    """Return recall@K of a peer's vectors, items of the training rows left out."""
    users, items = (
        torch.from_numpy(np.load(folder / f"{peer}_{side}.npy")) for side in ("users", "items")
    )
    seen, relevant = (
        by_user(np.load(folder / f"{part}.npy"), len(users)) for part in ("train", "validation")
    )
    asked = relevant.lengths().nonzero().squeeze(1)
    top = exact_topk(users[asked], items, K, seen.take(asked))[1]
    found = ranking_metrics(top, relevant.take(asked), (K,))
    return float(found[f"recall_at_{K}"].mean())


def by_user(pairs: NDArray[np.int64], num_users: int) -> Jagged:
    """Return each user's items; pairs (2, N) are sorted by user."""
    return Jagged.of_lengths(pairs[1], np.bincount(pairs[0], minlength=num_users))


def speed(
    bench: Benchmark, name: str, folder: Path, models: list[str], steps: int, rounds: int
) -> dict[str, Any]:
    """Train all in turn; return CPU seconds an epoch, pairs a CPU second, memory."""
    trainers = {model: trainer(bench, name, folder, model) for model in models}
    found: dict[str, list[dict[str, float]]] = {model: [] for model in models}
    for one in trainers.values():
        if one.name in ENGINE:
            one.order("train 3")
    for _ in range(rounds):
        for model, one in trainers.items():
            found[model].append(one.order(f"train {steps}"))
    for one in trainers.values():
        one.close()
    num_users = int(np.load(folder / "sizes.npy")[0])
    figures = {}
    for model, of_rounds in found.items():
        last = of_rounds[-1]
        scale = last.get("steps_an_epoch", 1) / last.get("steps", 1)
        pairs = num_users if model == ONE_A_USER else last["pairs"] * scale
        cpu = statistics.median(one["cpu"] for one in of_rounds) * scale
        figures[model] = {
            "cpu_s_an_epoch": round(cpu, 2),
            "pairs_an_epoch": round(pairs),
            "pairs_a_cpu_s": round(pairs / cpu),
            "share_of_epoch_run": round(1 / scale, 3),
            "peak_mib": int(last["peak_mib"]),
            "training_mib": int(last["peak_mib"] - last["loaded_mib"]),
        }
        bench.row(f"{name} {model}", str(figures[model]))
    return figures


def quality(
    bench: Benchmark, name: str, folder: Path, models: list[str], budget: float, steps: int
) -> dict[str, Any]:
    """Train each for `budget` CPU seconds or a little more; return its recall then."""
    figures = {}
    for model in models:
        one, spent, rounds, share = trainer(bench, name, folder, model), 0.0, 0, 1.0
        while spent < budget:
            answer = one.order(f"train {steps or 25}")
            share = answer.get("steps", 1) / answer.get("steps_an_epoch", 1)
            spent, rounds = spent + answer["cpu"], rounds + 1
        answer = one.order("evaluate")
        one.close()
        found = answer["recall"] if model in ENGINE else recall(folder, model)
        figures[model] = {
            f"recall_at_{K}": round(found, 4),
            "cpu_s": round(spent, 1),
            "epochs": round(rounds * share, 2),
        }
        bench.row(f"{name} {model}", str(figures[model]))
    return figures


def main() -> None:
    bench = Benchmark("retrieval_peers", __doc__ or "")
    torch.set_num_threads(1)
    given = dict(override.split("=", 1) for override in bench.overrides)
    steps = int(given.get("steps", 3 if bench.quick else 0))
    rounds = int(given.get("rounds", 1 if bench.quick else 3))
    budget = float(given.get("budget", 0))
    bench.name += "_recall" if budget else ""
    everyone = [*ENGINE, *(RETRIEVAL_PEERS if peers_are_there(bench, RETRIEVAL_PYTHON) else ())]
    models = given.get("models", ",".join(everyone)).split(",")
    figures: dict[str, Any] = {}
    for name in given.get("data", "ml1m" if bench.quick else "gowalla,ml1m").split(","):
        with tempfile.TemporaryDirectory(prefix="retrieval_peers-") as temporary:
            folder = Path(temporary)
            write_rows(name, folder)
            if budget:
                figures[name] = quality(bench, name, folder, models, budget, steps)
            else:
                figures[name] = speed(bench, name, folder, models, steps, rounds)
    bench.finish({**figures, "rounds": rounds, "threads": 1, "dim": DIM, "seed": 0})


if __name__ == "__main__":
    sys.exit(main())
