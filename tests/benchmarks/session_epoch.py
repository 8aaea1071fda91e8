"""An epoch of a model of sessions on MovieLens-1M, beside RecTools' SASRec and the usual SASRec.

The last two rows of each user are left out. The engine's model (`session_ml1m.yaml`; 64 and 128
wide, full softmax, with titles, genres and years) trains on every row, in windows of 200; the
peers, with their own default sizes and ids alone, on the last 200 rows of each user, as they do.
Each runs in a process of its own with one thread; rounds are taken in turn, CPU seconds are
counted. `--set share=0.2` takes a share of the users and scales the seconds up to all of them;
`--set rounds=2` repeats. Then: NDCG@10 of the engine's after its epochs, validation rows, seen
films left out; matrix products an epoch against what the thread does in a 1024^3 product of the
same precision; and weights against the size of the catalogue.

Needs the data on loan (RECSYS_DATA) and the peers' environment (`make peers`).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import yaml
from _harness import Benchmark
from _loaned import loaned
from _session_rows import ml1m
from peers.process import HERE, RETRIEVAL_PYTHON, ROOT, Here, peers_are_there
from peers.session_engine import answers

from recsys.models.session import SessionTransformerConfig
from recsys.training.engine.ranks import ALONE
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.session.task import build_session_model

SETTINGS = Path(__file__).with_name("session_ml1m.yaml")
WIDTHS = {64: 2, 128: 4}
"""Width -> heads."""
PEERS = ("sasrec_bce", "rectools")


class Process:
    """A process that answers each line with a line of JSON."""

    def __init__(self, command: list[str]) -> None:
        paths = f"{ROOT}{os.pathsep}{HERE.parent}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def order(self, line: str) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found


def started(
    benchmark: Benchmark, settings: dict[str, Path], folder: Path
) -> dict[str, Process | Here]:
    """Start the engine's processes and the peers'; of `--smoke` the engine answers here."""
    if benchmark.smoke:
        return {name: Here(name, partial(answers, path)) for name, path in settings.items()}
    engine, rivals = str(HERE / "session_engine.py"), str(HERE / "session_rivals.py")
    commands = {name: [sys.executable, engine, str(path)] for name, path in settings.items()} | {
        name: [str(RETRIEVAL_PYTHON), rivals, name, str(folder)] for name in PEERS
    }
    return {name: Process(command) for name, command in commands.items()}


def rows_of_some(source: Path, folder: Path, share: float) -> int:
    """Write the log of a share of the users for the engine and the peers; return how many."""
    log = pd.read_parquet(source / "ratings.parquet")
    log = log[log.position >= 0].sort_values(["user_id", "position"], kind="stable")
    users = log.user_id.unique()
    chosen = users[:: round(1 / share)]
    log = log[log.user_id.isin(chosen)]
    (folder / "ratings.parquet").unlink()
    log.to_parquet(folder / "ratings.parquet")
    from_end = log.groupby("user_id").cumcount(ascending=False)
    train = log[from_end >= 2]
    np.save(folder / "user.npy", pd.factorize(train.user_id)[0])
    np.save(folder / "item.npy", pd.factorize(train.movie_id)[0])
    return len(chosen)


def settings_of(benchmark: Benchmark, folder: Path, width: int) -> Path:
    raw: dict[str, Any] = yaml.safe_load(SETTINGS.read_text())
    raw["data"] = {key: str(folder / Path(path).name) for key, path in raw["data"].items()}
    raw["model"]["dim"] = width
    raw["model"]["transformer"]["num_heads"] = WIDTHS[width]
    if benchmark.smoke:
        raw["model"]["history_length"] = 10
        raw["embedding"]["num_rows"] = 1024
    path = folder / f"session_{width}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def weights_of(path: Path) -> dict[str, int]:
    """Return how many weights model and table have, and what a table of ids would hold."""
    config = load_config(path)
    data = load_data(config)
    model = build_session_model(config, data, ALONE)
    assert isinstance(config.model, SessionTransformerConfig)
    dense = sum(one.numel() for one in model.parameters())
    table = config.embedding.total_rows * config.embedding.dim
    sizes = {f"a vector for each of {n:,} ids": n * config.model.dim for n in (10**4, 10**5, 10**6)}
    return {"model": dense, "table, any catalogue": table, **sizes}


def main() -> None:
    benchmark = Benchmark("session_epoch", __doc__ or "")
    keys = dict(one.split("=", 1) for one in benchmark.overrides)
    share = float(keys.get("share", benchmark.sized("1", "0.05", "1")))
    rounds = int(keys.get("rounds", "1"))
    loaned("ml-1m")
    if not peers_are_there(benchmark, RETRIEVAL_PYTHON) and not benchmark.smoke:
        sys.exit(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        num_users = rows_of_some(ml1m(folder), folder, share)
        settings = {f"session {width}": settings_of(benchmark, folder, width) for width in WIDTHS}
        processes = started(benchmark, settings, folder)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in processes}
        for _ in range(rounds):
            for name, process in processes.items():
                found[name].append(process.order("train"))
        figures: dict[str, Any] = {"users": num_users, "rounds": rounds}
        for name, of_rounds in found.items():
            seconds = statistics.median(one["cpu_s"] for one in of_rounds) * 6040 / num_users
            own = {"cpu_s_an_epoch": seconds, "memory_mib": max(o["memory_mib"] for o in of_rounds)}
            if name.startswith("session"):
                own["ndcg_at_10"] = processes[name].order("evaluate")["ndcg_at_10"]
                own["targets"] = of_rounds[0]["targets"] * 6040 / num_users
                counted = processes[name].order("count")
                products = counted["products"] * 6040 / num_users
                own["share_of_peak"] = products / seconds / counted["peak_a_cpu_s"]
            figures[name] = own
            benchmark.row(name, "  ".join(f"{key} {value:.4g}" for key, value in own.items()))
        figures["weights"] = weights_of(folder / "session_128.yaml")
        for name, count in figures["weights"].items():
            benchmark.row(f"weights: {name}", f"{count:,}")
    figures["cpu_s"] = figures["session 64"]["cpu_s_an_epoch"]
    if not benchmark.smoke:
        fastest = min(figures[name]["cpu_s_an_epoch"] for name in PEERS)
        figures["vs_fastest_peer"] = fastest / figures["cpu_s"]
    benchmark.finish(figures)


if __name__ == "__main__":
    main()
