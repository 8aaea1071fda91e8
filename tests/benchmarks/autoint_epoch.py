"""CPU time of training rankers beside two other libraries, whole epochs of each taken in turn.

    ml1m     MovieLens-1M, the AutoInt authors' training rows, eight fields (a sample of the rows)
    criteo   39 fields in the manner of Criteo's logs: 13 numbers, 26 categories of 10 to 10,000
             values, Zipf's; small vocabularies, so that tables decide nothing

as AutoInt, as AutoInt+ with a perceptron of (400, 400), and, of FuxiCTR alone, as DCN-V2 and a
perceptron of that size. The same in all: 3 layers, of AutoInt with 2 heads, fields 16 wide, batch
normalisation and dropout 0.1 in perceptrons, batches of 4,096, Adam with L2 on the embedding,
single precision, one thread. Every library trains
with its own loop, reading included, in a process of its own: the engine with `fit` (checkpoint
included), DeepCTR-Torch with `fit`, FuxiCTR with `train_epoch`. What differs:

    for the peers     where widths are equal FuxiCTR's residual is no product; MovieLens genres are
                      one value for each combination, lists for the engine
    for the engine    its allocator setting (`keep_freed_memory`), which the peers do not make:
                      with it they run once more, as *_keeping_memory; its table is updated where
                      rows were read, theirs as a whole; its AutoInt normalises its fields, too
    either way        DeepCTR's attention reads no numbers: there they come as buckets; its `fit`
                      penalises embeddings. FuxiCTR's AutoInt is not in its wheel and is put
                      together of the wheel's parts (peers/rivals.py)

`vs_fastest_peer` is the median over all cells of CPU time a row, the faster peer's by the
engine's; `_without_reading` leaves out what each spends on reading alone, `_keeping_memory` is
against the peers with the engine's allocator setting, `_auto` the engine's with `precision: auto`.
`share_of_peak` counts the model's multiplications and additions, three times those of the forward
pass, against a 1024^3 single-precision product measured in turn. `make peers` sets the peers up.

    --set rows=81920 --set rounds=3     rows an epoch; epochs that count, after one to warm up
"""

import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from _harness import Benchmark, timed
from _loaned import folder_of
from autoint_ml1m import FILE, config_of
from embedding_methods.datasets import SINGLE, read_joined
from peers.process import PEERS, Trainer, number, peers_are_there, write_part

NUMBERS, CATEGORIES, EXPONENT, BUCKETS = 13, 26, 1.05, 100
ENGINES = (("engine", "float32"), ("engine_auto", "auto"))
"""The engine's trainers, and `training.precision` of each."""
BATCH_SIZE, LAYERS, HEADS, DIM = 4096, 3, 2, 16
DROPOUT, WEIGHT_DECAY = 0.1, 0.01
HIDDEN: dict[str, tuple[int, ...]] = {
    "autoint": (),
    "autoint+": (400, 400),
    "dcn": (400, 400),
    "mlp": (400, 400),
}
PEAK_SIZE = 1024
VS, KEEPING = "vs_fastest_peer", "_keeping_memory"
Figures = dict[str, Any]


def ml1m(num_rows: int) -> pd.DataFrame:
    """Return a sample of the training rows."""
    rows = read_joined().to_pandas()
    rows = rows[rows["split"] == "train"].sample(num_rows, random_state=0)
    return rows[[*SINGLE, "genres", "label"]]


def criteo(num_rows: int) -> pd.DataFrame:
    """Return rows of random numbers and Zipf values; labels that some of them decide."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"n{i}": rng.lognormal(size=num_rows) for i in range(NUMBERS)}
    power = 1 - EXPONENT
    for i, size in enumerate(np.logspace(1, 4, CATEGORIES)):
        ranks = ((size**power - 1) * rng.random(num_rows) + 1) ** (1 / power)
        columns[f"c{i}"] = ranks.astype(np.int64)
    logit = np.log(columns["n0"]) + (columns["c0"] % 2) - 0.5
    columns["label"] = (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    return pd.DataFrame(columns)


def peers_of(kind: str) -> tuple[str, ...]:
    """Return the libraries that have the model."""
    return PEERS if kind.startswith("autoint") else ("fuxictr",)


def model_of(kind: str) -> Figures:
    """Return the engine's settings of a model."""
    model: Figures = {"kind": kind.removesuffix("+"), "hidden": list(HIDDEN[kind])}
    if HIDDEN[kind]:
        model["dropout"] = DROPOUT
    if kind.startswith("autoint"):
        model |= {"head_dim": DIM // HEADS, "layers": LAYERS, "heads": HEADS}
    if kind == "dcn":
        model["cross_layers"] = LAYERS
    return model


def engine_config(data: str, kind: str, folder: Path, precision: str) -> Figures:
    """Return the experiment; the schema of `ml1m` is that of `autoint_ml1m`."""
    model = model_of(kind)
    raw = config_of("b", model, 0, folder, {}).model_dump(mode="json", by_alias=True)
    raw["training"] |= {"epochs": 1, "precision": precision, "batch_size": BATCH_SIZE}
    raw["training"]["checkpoint_every"] = 10**6
    if data == "criteo":
        table = {"table": "interactions"}
        raw["schema"]["features"] = [
            *({"name": f"c{i}", **table, "kind": "categorical"} for i in range(CATEGORIES)),
            *({"name": f"n{i}", **table, "kind": "numeric"} for i in range(NUMBERS)),
        ]
    return raw


def write_rows(data: str, rows: pd.DataFrame, folder: Path) -> None:
    """Write the rows for all: a table for the engine, numbered values for the peers."""
    names = [name for name in rows if name != "label"]
    plain = [data == "criteo" and name.startswith("n") for name in names]
    columns = [rows[name] for name in names]
    buckets = [
        pd.qcut(column, BUCKETS, labels=False) if is_number else column
        for column, is_number in zip(columns, plain, strict=True)
    ]
    for peer, given, numbers in (
        ("fuxictr", columns, plain),
        ("deepctr", buckets, [False] * len(names)),
    ):
        (folder / peer).mkdir()
        fields, sizes = number(given, numbers)
        write_part(folder / peer, "", fields, rows["label"].to_numpy())
        np.save(folder / peer / "sizes.npy", sizes)
    for name in ("user_id", "movie_id"):  # roles that the table must have, no features here
        if name not in rows:
            rows[name] = np.arange(len(rows)) % 1000
    rows["split"] = "train"
    others = [rows[:100].assign(split=part) for part in ("valid", "test")]
    pd.concat([rows, *others]).to_parquet(folder / FILE)


def flops(num_fields: int, kind: str) -> int:
    """Multiplications and additions of a row's forward pass."""
    width, hidden = num_fields * DIM, HIDDEN[kind]
    layer = {"dcn": 2 * width**2, "mlp": 0}.get(
        kind, 2 * width * 4 * DIM + 2 * 2 * num_fields**2 * DIM
    )
    widths = [width, *hidden, 1] if hidden else []
    deep = sum(2 * a * b for a, b in pairwise(widths))
    return LAYERS * layer + deep + 2 * width


def peak_gflops() -> float:
    """Single-precision products of this thread, 10^9 operations a CPU second."""
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE)
    torch.mm(a, b)
    return 20 * PEAK_SIZE**3 / timed(lambda: [torch.mm(a, b) for _ in range(10)]).cpu / 1e9


def measure(bench: Benchmark, data: str, kind: str, num_rows: int, rounds: int) -> Figures:
    """Train all of them in turn; return CPU microseconds a row, peak memory and ratios."""
    hidden = HIDDEN[kind]
    peer_settings = {
        "layers": LAYERS,
        "heads": HEADS,
        "dim": DIM,
        "kind": kind.removesuffix("+"),
        "hidden": list(hidden),
        "batch_norm": True,
        "dropout": DROPOUT,
        "regularizer": WEIGHT_DECAY,
        "batch_size": BATCH_SIZE,
        "learning_rate": 0.001,
    }
    with tempfile.TemporaryDirectory(prefix="autoint_epoch-") as temporary:
        folder = Path(temporary)
        rows = (ml1m if data == "ml1m" else criteo)(num_rows)
        write_rows(data, rows, folder)
        trainers = {
            name: Trainer(name, folder, {"config": engine_config(data, kind, folder, precision)})
            for name, precision in bench.sized(ENGINES, ENGINES, ENGINES[:1])
        }
        if peers_are_there(bench):
            for peer in peers_of(kind):
                for suffix in ("", KEEPING):
                    trainers[peer + suffix] = Trainer(
                        peer, folder / peer, peer_settings, keeps_memory=bool(suffix)
                    )
        found: dict[str, list[float]] = {name: [] for name in trainers}
        reading: dict[str, list[float]] = {name: [] for name in trainers}
        peaks, memory = [], {}
        for _ in range(rounds + 1):
            for name, trainer in trainers.items():
                answer = trainer.order("epoch")
                found[name].append(1e6 * answer["cpu"] / num_rows)
                reading[name].append(1e6 * trainer.order("load")["cpu"] / num_rows)
                memory[name] = int(answer["peak_mib"])
            peaks.append(peak_gflops())
        for trainer in trainers.values():
            trainer.close()
    num_fields = 8 if data == "ml1m" else NUMBERS + CATEGORIES
    return report(bench, data, kind, num_fields, found, reading, memory, peaks)


def report(
    bench: Benchmark,
    data: str,
    kind: str,
    num_fields: int,
    found: dict[str, list[float]],
    reading: dict[str, list[float]],
    memory: dict[str, int],
    peaks: list[float],
) -> Figures:
    """Print and return one cell: medians without the first round."""
    time = {name: statistics.median(values[1:]) for name, values in found.items()}
    alone = {name: time[name] - statistics.median(reading[name][1:]) for name in time}
    peak = statistics.median(peaks)
    share = 3 * flops(num_fields, kind) / time["engine"] / 1e3 / peak
    figures: Figures = {
        "cpu_us_a_row": {name: round(value, 2) for name, value in time.items()},
        "cpu_us_a_row_without_reading": {name: round(value, 2) for name, value in alone.items()},
        "peak_memory_mib": memory,
        "share_of_peak": round(share, 3),
        "peak_gflops": round(peak, 1),
    }
    bench.row(f"{data} {kind}", f"{share:.2f} of the peak of {peak:.0f} GFLOP a CPU second")
    for name, value in time.items():
        words = f"{value:8.2f} CPU us a row, {alone[name]:8.2f} without reading"
        if name.removesuffix(KEEPING) in PEERS:
            figures[f"vs_{name}"] = round(value / time["engine"], 2)
            words += f", {figures[f'vs_{name}']:.2f} times the engine's"
        bench.row(f"  {name}", f"{words}; {memory[name]} MiB")
    peers = [name for name in peers_of(kind) if name in time]
    if peers:
        fastest = min(time[name] for name in peers)
        keeping = min(time[name + KEEPING] for name in peers)
        reading_apart = min(alone[name] for name in peers) / alone["engine"]
        figures |= {
            VS: round(fastest / time["engine"], 2),
            VS + KEEPING: round(keeping / time["engine"], 2),
            f"{VS}_without_reading": round(reading_apart, 2),
            f"{VS}_auto": round(fastest / time["engine_auto"], 2),
        }
    return figures


def main() -> None:
    bench = Benchmark("autoint_epoch", __doc__ or "")
    torch.set_num_threads(1)
    given = dict(override.split("=", 1) for override in bench.overrides)
    num_rows = int(given.get("rows", bench.sized(81_920, 20_480, 512)))
    rounds = int(given.get("rounds", 1 if bench.quick else 3))
    data = ["criteo"] if bench.quick or not folder_of("ml-1m").is_dir() else ["ml1m", "criteo"]
    kinds = ["autoint"] if bench.quick else list(HIDDEN)
    cells = {
        f"{name} {kind}": measure(bench, name, kind, num_rows, rounds)
        for name in data
        for kind in kinds
    }
    keys = (VS, VS + KEEPING, f"{VS}_without_reading", f"{VS}_auto")
    figures: Figures = {
        key: round(statistics.median(cell[key] for cell in cells.values()), 2)
        for key in (*keys, "share_of_peak")
        if all(key in cell for cell in cells.values())
    }
    bench.finish(
        {
            **figures,
            "cells": cells,
            "rows_an_epoch": num_rows,
            "rounds": rounds,
            "threads": 1,
            "seed": 0,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
