"""Which embedding predicts best at a given number of parameters: AUC on MovieLens-1M.

As in section 5 of Coleman et al. 2023 (https://arxiv.org/abs/2305.12102): the same model (DCN-V2)
with the same optimizer, batches and number of steps; only the embedding differs, in method and in
size, from what a collision-free one needs down to a hundredth of it. Data: the split of the AutoInt
authors (a rating of 3 dropped, above is 1), eight fields. Of every run the epoch with the best
validation AUC counts. The table's learning rate is the one that suits the collision-free reference
best on the validation rows, the same for all.

--set workers=2 runs so many at a time, a thread each; --set log=FILE keeps each run that is done
as a line of JSON, and a second call goes on from there; --set learning_rates=0.02,0.05 does the
search for the reference's learning rate and nothing else. Needs the data on loan (RECSYS_DATA).
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from _harness import Benchmark, peak_memory_mib
from _loaned import loaned
from embedding_methods.alternatives import (
    METHODS,
    build_embedding,
    collisionless_parameters,
)
from scipy.stats import t as student
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.table import TableConfig
from recsys.features.encoding.hashing import hash_values
from recsys.models.dcn import DCN, DCNConfig
from recsys.training.engine.machine import keep_freed_memory

PLOT = Path(__file__).resolve().parents[2] / "docs" / "embedding_pareto.png"
SINGLE = ("user_id", "movie_id", "year", "gender", "age", "occupation", "zip_code")
LAYOUT = FeatureLayout(tuple((name, 1) for name in SINGLE), (("genres", 1),), ())
PERCENTS = (100, 50, 20, 10, 3, 1)
VOCABULARIES = ("collisionless", "quotient_remainder")
"""Methods that have to keep the values, 8 bytes each, to number them."""
DIM = 16
BATCH_SIZE = 4096
CPU = torch.device("cpu")
Figures = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One point of the grid: an embedding, trained once."""

    method: str
    percent: int
    seed: int
    learning_rate: float
    epochs: int
    max_steps: int


@dataclass(frozen=True)
class Rows:
    """Encoded rows of one part of the split with their labels (N,) float32."""

    features: FeatureBlock
    label: Tensor

    def take(self, rows: Tensor) -> "Rows":
        return Rows(self.features.take(rows), self.label[rows])


def read_joined() -> pa.Table:
    """Return the split with the attributes of its users and movies, in its order."""
    folder = loaned("ml-1m")
    table = pq.read_table(folder / "autoint_split.parquet")
    for key, columns in (
        ("movie_id", ["movie_id", "genres", "year"]),
        ("user_id", ["user_id", "gender", "age", "occupation", "zip_code"]),
    ):
        name = "movies.parquet" if key == "movie_id" else "users.parquet"
        other = pq.read_table(folder / name, columns=columns)
        found = pc.index_in(table[key], other[key].combine_chunks())
        for column in columns[1:]:
            table = table.append_column(column, other[column].take(found))
    return table


def encode(table: pa.Table) -> Rows:
    """Return all rows as value hashes."""
    single = np.stack([hash_values(table[name]) for name in SINGLE], axis=1)
    lists = pc.split_pattern(table["genres"].combine_chunks(), "|")
    offsets = torch.tensor(np.asarray(lists.offsets), dtype=torch.int64)
    genres = Jagged(torch.tensor(hash_values(lists.flatten())), offsets)
    label = torch.tensor(table["label"].to_numpy(), dtype=torch.float32)
    features = FeatureBlock(torch.tensor(single), (genres,), torch.zeros(len(label), 0))
    return Rows(features, label)


@cache
def parts() -> dict[str, Rows]:
    """Return the rows of each part of the split."""
    table = read_joined()
    rows, split = encode(table), np.asarray(table["split"])
    names = sorted(set(split.tolist()))
    return {name: rows.take(torch.tensor(np.flatnonzero(split == name))) for name in names}


@cache
def training_values() -> dict[str, Tensor]:
    """Return the distinct value hashes of each feature in the training rows."""
    features = parts()["train"].features
    columns = dict(zip(SINGLE, features.single.unbind(1), strict=True))
    columns["genres"] = features.multi[0].values
    return {name: torch.unique(values) for name, values in columns.items()}


def batches(rows: Rows, order: Tensor) -> Iterator[Rows]:
    return (rows.take(part) for part in order.split(BATCH_SIZE))


@torch.no_grad()
def evaluate(model: DCN, rows: Rows) -> dict[str, float]:
    """Return AUC and log loss."""
    model.eval()
    order = torch.arange(len(rows.label))
    logits = torch.cat([model(batch.features) for batch in batches(rows, order)])
    model.train()
    label, probabilities = rows.label.numpy(), logits.double().sigmoid().numpy()
    return {
        "auc": float(roc_auc_score(label, probabilities)),
        "log_loss": float(log_loss(label, probabilities)),
    }


def train(run: Run) -> Figures:
    """Train one model; return the figures of its best epoch on the validation rows."""
    started = time.process_time()
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    data, values = parts(), training_values()
    table = TableConfig(dim=DIM, learning_rate=run.learning_rate)
    embedding = build_embedding(
        run.method,
        [LAYOUT],
        table,
        parameters=collisionless_parameters(values, DIM) * run.percent // 100,
        values=values,
        device=CPU,
        seed=run.seed,
    )
    model = DCN(DCNConfig(), embedding, embedding.width(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history: list[dict[str, float]] = []
    best: dict[str, float] = {"auc": 0.0}
    for epoch in range(run.epochs):
        generator = torch.Generator().manual_seed(run.seed * 997 + epoch)
        order = torch.randperm(len(data["train"].label), generator=generator)
        for batch in batches(data["train"], order[: run.max_steps * BATCH_SIZE]):
            optimizer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(model(batch.features), batch.label).backward()
            optimizer.step()
        history.append(evaluate(model, data["valid"]))
        if history[-1]["auc"] > best["auc"]:
            best = {**history[-1], "epoch": epoch + 1}
            test = evaluate(model, data["test"])
    return {
        **asdict(run),
        "parameters": embedding.num_parameters,
        "width": embedding.width(0),
        "best_epoch": best["epoch"],
        "validation_auc": best["auc"],
        "validation_by_epoch": [round(one["auc"], 5) for one in history],
        "test_auc": test["auc"],
        "test_log_loss": test["log_loss"],
        "cpu_s": round(time.process_time() - started, 1),
    }


def done_before(log: Path | None, runs: Iterable[Run]) -> dict[Run, Figures]:
    """Return what the log holds of these runs, settings and all."""
    wanted, found = set(runs), {}
    if log is not None and log.is_file():
        for line in log.read_text().splitlines():
            one = json.loads(line)
            run = Run(**{name: one[name] for name in Run.__dataclass_fields__})
            if run in wanted:
                found[run] = one
    return found


def run_all(bench: Benchmark, runs: list[Run], workers: int, log: Path | None) -> list[Figures]:
    """Return the figures of all runs, `workers` of them at a time."""
    found = done_before(log, runs)
    todo = [run for run in runs if run not in found]
    results = list(found.values())
    with bench.workers(workers, keep_freed_memory) as pool:
        for done in as_completed([pool.submit(train, run) for run in todo]):
            one = done.result()
            results.append(one)
            if log is not None:
                with log.open("a") as file:
                    file.write(json.dumps(one) + "\n")
            bench.row(
                f"{one['method']} {one['percent']} %, seed {one['seed']}",
                f"AUC {one['test_auc']:.5f} (validation {one['validation_auc']:.5f}, epoch "
                f"{one['best_epoch']}), {one['cpu_s']} CPU s  [{len(results)}/{len(runs)}]",
            )
    return results


def summary(results: list[Figures]) -> list[Figures]:
    """Return one point a method and size: mean over the seeds and half its 95 % t-interval."""
    by_point: dict[tuple[str, int], list[Figures]] = {}
    for one in results:
        by_point.setdefault((one["method"], one["percent"]), []).append(one)
    points: list[Figures] = []
    for (method, percent), same in sorted(by_point.items(), key=lambda p: (-p[0][1], p[0][0])):
        mean, half = interval([one["test_auc"] for one in same])
        points.append(
            {
                "method": method,
                "percent": percent,
                "parameters": same[0]["parameters"],
                "kib": round(size_bytes(method, same[0]["parameters"]) / 1024, 1),
                "auc": round(mean, 5),
                "auc_half_width": round(half, 5),
                "log_loss": round(interval([o["test_log_loss"] for o in same])[0], 5),
                "seeds": len(same),
                "best_epochs": [one["best_epoch"] for one in same],
            }
        )
    return points


def size_bytes(method: str, parameters: int) -> int:
    """Return the bytes of the table, and of the vocabulary where the method needs one."""
    numbered = sum(len(values) for values in training_values().values())
    vocabulary = 8 * numbered if method in VOCABULARIES else 0
    return 4 * parameters + vocabulary


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % t-interval (0 of a single value)."""
    if len(values) < 2:
        return values[0], 0.0
    error = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(student.ppf(0.975, len(values) - 1)) * error


def frontier(points: list[Figures], size: str) -> list[str]:
    """Return the points that none as small with a better mean AUC beats.

    size: "percent", what was asked for (the parameters built differ by less than a row's worth),
    or "kib", what has to be kept to serve the model.
    """

    def beaten(point: Figures) -> bool:
        return any(other[size] <= point[size] and other["auc"] > point["auc"] for other in points)

    return [f"{point['method']} {point['percent']} %" for point in points if not beaten(point)]


def ranked(points: list[Figures]) -> dict[str, list[str]]:
    """Return the methods at each size, best mean AUC first."""
    found: dict[str, list[str]] = {}
    for point in sorted(points, key=lambda p: (-p["percent"], -p["auc"])):
        found.setdefault(f"{point['percent']} %", []).append(point["method"])
    return found


def plot(points: list[Figures], path: Path) -> None:
    """Draw AUC over parameters, and over all bytes that are kept, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5), sharey=True, layout="constrained")
    for axis, size in zip(axes, ("parameters", "kib"), strict=True):
        for method in METHODS:
            own = sorted((p for p in points if p["method"] == method), key=lambda p: p[size])
            x, y = [p[size] for p in own], [p["auc"] for p in own]
            error = [p["auc_half_width"] for p in own]
            style = {"fmt": "k*", "markersize": 11} if method == "collisionless" else {"fmt": "o-"}
            axis.errorbar(x, y, yerr=error, capsize=3, label=method.replace("_", " "), **style)
            if method == "collisionless" and y:
                axis.axhline(y[0], color="black", linewidth=0.7, linestyle=":")
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_xlabel("embedding parameters")
    axes[1].set_xlabel("KiB of the table, and of the vocabulary where there is one")
    axes[0].set_ylabel("test AUC (mean of seeds, 95 % t-interval)")
    axes[0].legend()
    figure.suptitle("MovieLens-1M, DCN-V2: AUC by embedding and size")
    figure.savefig(path, dpi=100)


def grid(bench: Benchmark, options: Mapping[str, str]) -> list[Run]:
    """Return every run, seed by seed, so that an unfinished grid is whole for some seeds."""
    percents = bench.sized(PERCENTS, (100, 10, 1), (100, 50))
    make = partial(
        Run,
        learning_rate=float(options.get("learning_rate", 0.2)),
        epochs=int(options.get("epochs", 1 if bench.quick else 6)),
        max_steps=40 if bench.quick else 1_000,
    )
    points = [("collisionless", 100)] + [
        (method, percent) for percent in percents for method in METHODS if method != "collisionless"
    ]
    seeds = range(1 if bench.quick else int(options.get("seeds", 3)))
    return [make(*point, seed=seed) for seed in seeds for point in points]


def search(options: Mapping[str, str]) -> list[Run]:
    """Return the reference's runs under each learning rate."""
    rates = [float(rate) for rate in options["learning_rates"].split(",")]
    epochs = int(options.get("epochs", 6))
    make = partial(Run, "collisionless", 100, epochs=epochs, max_steps=1_000)
    return [make(seed=seed, learning_rate=rate) for rate in rates for seed in range(2)]


def main() -> None:
    bench = Benchmark("embedding_pareto", __doc__ or "")
    options = dict(override.split("=", 1) for override in bench.overrides)
    loaned("ml-1m")
    log = Path(options["log"]) if "log" in options else None
    workers = int(options.get("workers", 2))
    if "learning_rates" in options:
        for one in run_all(bench, search(options), workers, log):
            bench.row(f"learning rate {one['learning_rate']}", str(one["validation_by_epoch"]))
        return
    runs = grid(bench, options)
    points = summary(run_all(bench, runs, workers, log))
    for point in points:
        bench.row(
            f"{point['method']}, {point['parameters']} floats ({point['percent']} %)",
            f"AUC {point['auc']:.5f} +- {point['auc_half_width']:.5f}",
        )
    if bench.save and not bench.quick:
        plot(points, PLOT)
    bench.finish(
        {
            "points": points,
            "frontier": frontier(points, "percent"),
            "frontier_by_bytes": frontier(points, "kib"),
            "best_first": ranked(points),
            "model": "dcn",
            "dim": DIM,
            "batch_size": BATCH_SIZE,
            "epochs": runs[0].epochs,
            "learning_rate": runs[0].learning_rate,
            "optimizer": "row_wise_adagrad; adamw 0.001 for the rest",
            "seeds": sorted({run.seed for run in runs}),
            "cardinalities": {name: len(found) for name, found in training_values().items()},
            "threads": 1,
            "peak_memory_mib": peak_memory_mib(),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
