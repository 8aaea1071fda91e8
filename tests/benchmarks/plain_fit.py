"""Fitting plain models beside implicit's and RecTools' on the same matrix: CPU time.

    ml1m      MovieLens-1M, all ratings: 6,040 users, 3,706 films
    gowalla   check-ins, the published training rows: 29,858 users, 40,981 places; no `ease`

`item_knn` beside implicit's CosineRecommender, 200 neighbours each; `ease` beside RecTools'
EASEModel, l2 of 200 each. Each in a process of its own for the peers, one thread, in turn;
reading is not counted. `vs_peer` is the peer's median CPU time by ours: above 1 we are faster.

    --set rounds=3    rounds that count, after one to warm up

Needs the data on loan (RECSYS_DATA) and the peers' environment (`make peers`).
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow.parquet as pq
import torch
from _harness import Benchmark
from _loaned import loaned
from peers.process import RETRIEVAL_PYTHON, Trainer, peers_are_there

from recsys.plain.linear import Ease
from recsys.plain.neighbours import ItemKNN

PEER = {"item_knn": "cosine", "ease": "ease"}
DATA = {"ml1m": ("item_knn", "ease"), "gowalla": ("item_knn",)}


def pairs_of(name: str) -> Any:
    """Return distinct pairs of a user and an item, numbered from 0, (2, N), and their counts."""
    if name == "made up":
        rng = np.random.default_rng(0)
        pairs = np.stack([rng.integers(60, size=900), rng.integers(40, size=900)])
    elif name == "ml1m":
        log = pq.read_table(loaned("ml-1m") / "ratings.parquet")
        pairs = np.stack([np.asarray(log[one]) for one in ("user_id", "movie_id")])
    else:
        log = pq.read_table(loaned("gowalla") / "interactions.parquet")
        kept = np.asarray(log["split"]) == "train"
        pairs = np.stack([np.asarray(log[one])[kept] for one in ("user_id", "item_id")])
    rows = [np.unique(one, return_inverse=True)[1] for one in pairs]
    found = np.unique(np.stack(rows), axis=1).astype(np.int64)
    return found, found.max(1) + 1


def fit(kind: str, pairs: Any, num_items: int) -> float:
    """Return the CPU seconds of fitting a model."""
    models: dict[str, Callable[..., Any]] = {"item_knn": ItemKNN.fit, "ease": Ease.fit}
    start = time.process_time()
    models[kind](pairs[0], pairs[1], num_items)
    return time.process_time() - start


def measured(kind: str, pairs: Any, sizes: Any, rounds: int, *, peers: bool) -> dict[str, float]:
    """Return the medians of ours and of the peer's, taken in turn."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="plain-fit-") as place:
        folder = Path(place)
        np.save(folder / "train.npy", pairs)
        np.save(folder / "sizes.npy", sizes)
        peer = Trainer(PEER[kind], folder, {"dim": 0}) if peers else None
        for number in range(rounds + 1):
            own = fit(kind, pairs, int(sizes[1]))
            other = peer.order("train")["cpu"] if peer is not None else float("nan")
            if number:
                ours.append(own)
                theirs.append(other)
        if peer is not None:
            peer.close()
    found = {"cpu_s": round(statistics.median(ours), 3)}
    if peers:
        other = statistics.median(theirs)
        found |= {"peer_cpu_s": round(other, 3), "vs_peer": round(other / found["cpu_s"], 2)}
    return found


def main() -> None:
    benchmark = Benchmark("plain_fit", __doc__ or "")
    torch.set_num_threads(1)
    given = dict(one.split("=", 1) for one in benchmark.overrides)
    rounds = int(given.get("rounds", benchmark.sized(3, 1, 1)))
    peers = peers_are_there(benchmark, RETRIEVAL_PYTHON)
    figures: dict[str, Any] = {}
    for name, kinds in ({"made up": ("item_knn", "ease")} if benchmark.smoke else DATA).items():
        pairs, sizes = pairs_of(name)
        for kind in kinds:
            found = measured(kind, pairs, sizes, rounds, peers=peers)
            figures[f"{name} {kind}"] = found
            benchmark.row(f"{name}: {kind}", ", ".join(f"{n} {v}" for n, v in found.items()))
    benchmark.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
