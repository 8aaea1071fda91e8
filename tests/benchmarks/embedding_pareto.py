"""Which embedding predicts best at a given size, in parameters and in bytes.

As in section 5 of Coleman et al. 2023 (https://arxiv.org/abs/2305.12102): the same model (a
perceptron with batch normalisation) with the same optimizers (element-wise Adam and L2 on the
table), batches and number of epochs, on weights averaged over the last epoch; only the embedding
differs, in method and in size. Tables of a feature's own and the same methods multiplexed, in one
table that all features share (`embedding_methods.alternatives`). Of every run the epoch with the
best validation AUC counts. Bytes are those of the table and of the values that a method has to
keep to number them; a wider embedded row needs a wider perceptron, so that all bytes of the model,
dense weights included, are given beside them.

    --set data=frappe            or ml1m (ids among the fields), planted (clicks with a known
                                 truth), or several of them; all unless given
    --set rows=5000000           of planted (default 500,000)
    --set methods=unified,robe   some of the methods
    --set percents=100,20        sizes, in per cent of the floats of a collision-free table
    --set seeds=2                (default 1)
    --set epochs=20              at most; or hidden=400x400, weight_decay=0.05, patience=2
    --set workers=2              so many runs at a time, a thread each
    --set log=FILE               keeps each run that is done as a line of JSON; a second call goes
                                 on from there; with train=no it shows what is in FILE
    --set plot=PATH              where --save draws (default docs/embedding_pareto.png)

`--save` keeps what is saved of the other data sets, and draws all. The data on loan are needed
(RECSYS_DATA), but for planted.
"""

import json
import os
import statistics
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _harness import RESULTS, Benchmark, peak_memory_mib
from _loaned import loaned
from embedding_methods.alternatives import METHODS, MULTIPLEXED
from embedding_methods.datasets import DATA, study_data
from embedding_methods.training import BATCH_SIZE, DIM, Figures, Run, train
from scipy.stats import t as student

from recsys.layers.mlp import mlp
from recsys.training.engine.machine import keep_freed_memory

PLOT = Path(__file__).resolve().parents[2] / "docs" / "embedding_pareto.png"
PERCENTS = (100.0, 50.0, 20.0, 5.0)
WEIGHT_DECAY = {"frappe": 0.02, "ml1m": 0.01}
"""L2 of the table, alike for all methods; without one here it is 10,000 / training rows."""
EPOCHS = {"frappe": 12, "ml1m": 8, "planted": 6}
FOLDERS = {"frappe": "frappe", "ml1m": "ml-1m"}
TITLES = {"frappe": "Frappe", "ml1m": "MovieLens-1M", "planted": "planted clicks"}


def done_before(log: Path | None, runs: Iterable[Run]) -> dict[Run, Figures]:
    """Return what the log holds of these runs, settings and all."""
    wanted, found = set(runs), {}
    if log is not None and log.is_file():
        for line in log.read_text().splitlines():
            one = json.loads(line)
            known = {name: one[name] for name in Run.__dataclass_fields__ if name in one}
            run = Run(**{**known, "hidden": tuple(known["hidden"])})
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
                f"{one['method']} {one['percent']:g} %, seed {one['seed']}",
                f"AUC {one['test_auc']:.5f} (validation {one['validation_auc']:.5f}, epoch "
                f"{one['best_epoch']}), {one['cpu_s']} CPU s  [{len(results)}/{len(runs)}]",
            )
    return results


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % t-interval (0 of a single value)."""
    if len(values) < 2:
        return values[0], 0.0
    error = statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(student.ppf(0.975, len(values) - 1)) * error


def dense_kib(one: Figures) -> float:
    """Return the KiB of the perceptron that reads this embedding."""
    dense = mlp(one["width"], tuple(one["hidden"]), 1, dropout=0.1, norm="batch")
    return sum(4 * parameter.numel() for parameter in dense.parameters()) / 1024


def summary(results: list[Figures]) -> list[Figures]:
    """Return one point a method and size: mean over the seeds and half its 95 % t-interval."""
    by_point: dict[tuple[str, float], list[Figures]] = {}
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
                "kib": same[0]["kib"],
                "width": same[0]["width"],
                "model_kib": round(same[0]["kib"] + dense_kib(same[0]), 1),
                "auc": round(mean, 5),
                "auc_half_width": round(half, 5),
                "log_loss": round(interval([o["test_log_loss"] for o in same])[0], 5),
                "validation_auc": round(interval([o["validation_auc"] for o in same])[0], 5),
                "seeds": len(same),
                "best_epochs": [one["best_epoch"] for one in same],
            }
        )
    return points


def frontier(points: list[Figures], size: str) -> list[str]:
    """Return the points that none as small with a better mean AUC beats.

    size: "percent", what was asked for (the parameters built differ by less than a row's worth),
    "kib", what has to be kept of the embedding, or "model_kib", of the whole model.
    """

    def beaten(point: Figures) -> bool:
        return any(other[size] <= point[size] and other["auc"] > point["auc"] for other in points)

    return [f"{point['method']} {point['percent']:g} %" for point in points if not beaten(point)]


def best_of_both(points: list[Figures]) -> dict[str, dict[str, list[Any]]]:
    """Return, at each size, the best method with tables of its own and the best multiplexed."""
    found: dict[str, dict[str, list[Any]]] = {}
    for point in sorted(points, key=lambda p: (-p["percent"], -p["auc"])):
        kind = "multiplexed" if point["method"] in MULTIPLEXED else "own tables"
        at_size = found.setdefault(f"{point['percent']:g} %", {})
        at_size.setdefault(kind, [point["method"], point["auc"]])
    return found


def ranked(points: list[Figures]) -> dict[str, list[str]]:
    """Return the methods at each size, best mean AUC first."""
    found: dict[str, list[str]] = {}
    for point in sorted(points, key=lambda p: (-p["percent"], -p["auc"])):
        found.setdefault(f"{point['percent']:g} %", []).append(point["method"])
    return found


def saved(path: Path) -> dict[str, Figures]:
    """Return the figures that were saved before, by data set."""
    figures = json.loads(path.read_text())["figures"] if path.is_file() else {}
    return {name: figures[name] for name in DATA if name in figures}


def plot(points: Mapping[str, list[Figures]], path: Path) -> None:
    """Draw AUC over parameters, and over all bytes that are kept, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shape = (len(points), 2)
    size = (13, 4.2 * len(points) + 0.8)
    figure, axes = pyplot.subplots(
        *shape, figsize=size, sharey="row", squeeze=False, layout="constrained"
    )
    colours = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for row, (name, own_points) in zip(axes, points.items(), strict=True):
        for axis, size_by in zip(row, ("parameters", "kib"), strict=True):
            for number, method in enumerate(METHODS):
                own = sorted(
                    (p for p in own_points if p["method"] == method), key=lambda p: p[size_by]
                )
                x, y = [p[size_by] for p in own], [p["auc"] for p in own]
                style: dict[str, Any] = {"fmt": "o-" if method in MULTIPLEXED else "s--"}
                if method == "collisionless":
                    style = {"fmt": "k*", "markersize": 11}
                    if y:
                        axis.axhline(y[0], color="black", linewidth=0.7, linestyle=":")
                else:
                    style["color"] = colours[number]
                # A t-interval of two values is wider than the figure.
                error = [p["auc_half_width"] if p["seeds"] > 2 else 0.0 for p in own]
                axis.errorbar(x, y, yerr=error, capsize=3, label=method.replace("_", " "), **style)
            axis.set_xscale("log")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{TITLES[name]}: test AUC")
    axes[-1][0].set_xlabel("embedding parameters")
    axes[-1][1].set_xlabel("KiB of the table, and of the vocabulary where there is one")
    axes[0][1].legend(fontsize=8, loc="lower right")
    figure.suptitle("AUC by embedding and size; solid: all features in one table")
    figure.savefig(path, dpi=90)


def grid(bench: Benchmark, data: str, options: Mapping[str, str]) -> list[Run]:
    """Return every run, seed by seed, so that an unfinished grid is whole for some seeds."""
    sizes: tuple[float, ...] = bench.sized(PERCENTS, (100.0, 10.0), (100.0, 50.0))
    if "percents" in options:
        sizes = tuple(float(one) for one in options["percents"].split(","))
    methods = options["methods"].split(",") if "methods" in options else list(METHODS)
    decay = options.get("weight_decay", WEIGHT_DECAY.get(data))
    rows = int(options.get("rows", bench.sized(500_000, 200_000, 5_000)))
    hidden = bench.sized("128x64", "64", "8")
    shared: Any = {
        "data": data,
        "num_rows": rows,
        "hidden": tuple(int(one) for one in options.get("hidden", hidden).split("x")),
        "epochs": int(options.get("epochs", 1 if bench.quick else EPOCHS[data])),
        "patience": int(options.get("patience", 2)),
        "max_steps": bench.sized(100_000, 20, 2),
        "weight_decay": None if decay is None else float(decay),
    }
    points = [
        (method, size)
        for size in sizes
        for method in methods
        if method != "collisionless" or size == sizes[0] == 100
    ]
    seeds = range(1 if bench.quick else int(options.get("seeds", 1)))
    return [Run(method=m, percent=p, seed=s, **shared) for s in seeds for m, p in points]


def measured(bench: Benchmark, data: str, options: Mapping[str, str]) -> Figures:
    """Run the grid on one data set; return its figures."""
    runs = grid(bench, data, options)
    log = Path(options["log"]) if "log" in options else None
    if options.get("train") == "no":
        runs = [run for run in runs if run in done_before(log, runs)]
        if not runs:
            sys.exit(f"{log} holds no run of {data} with these settings")
    points = summary(run_all(bench, runs, int(options.get("workers", 1)), log))
    for point in points:
        bench.row(
            f"{data}: {point['method']}, {point['percent']:g} %",
            f"AUC {point['auc']:.5f} +- {point['auc_half_width']:.5f}, {point['kib']} KiB",
        )
    found = study_data(data, runs[0].num_rows)
    return {
        "points": points,
        "frontier": frontier(points, "percent"),
        "frontier_by_bytes": frontier(points, "kib"),
        "frontier_by_model_bytes": frontier(points, "model_kib"),
        "best_first": ranked(points),
        "best_of_both": best_of_both(points),
        "cardinalities": {name: len(v) for name, v in found.training_values().items()},
        "best_reachable_auc": found.best_auc,
        "training_rows": len(found.parts["train"]),
        "hidden": list(runs[0].hidden),
        "dim": DIM,
        "batch_size": BATCH_SIZE,
        "epochs": runs[0].epochs,
        "weight_decay": runs[0].weight_decay or found.weight_decay,
    }


def main() -> None:
    bench = Benchmark("embedding_pareto", __doc__ or "")
    options = dict(override.split("=", 1) for override in bench.overrides)
    names = options["data"].split(",") if "data" in options else list(DATA)
    if set(names) - set(DATA):
        sys.exit(f"data is some of {', '.join(DATA)}, and it is {options['data']}")
    for name in names:
        if name in FOLDERS:
            loaned(FOLDERS[name])
    figures = saved(RESULTS / f"{bench.name}.json") if bench.save else {}
    figures |= {name: measured(bench, name, options) for name in names}
    if bench.save and not bench.quick:
        points = {name: figures[name]["points"] for name in DATA if name in figures}
        plot(points, Path(options.get("plot", PLOT)))
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
