"""Where self-supervision pays: two-towers, rankers and sessions by the share of training rows.

Each family as `recsys init` writes it for the tables (models of sessions as in its commented
block), trained until the validation rows say stop, with 1 to 100 % of the training rows, which are
drawn anew for each seed; validation and test are the same for all. Arms, with the same weights for
all data sets and shares: none; on items, the losses of Yao et al.
(https://arxiv.org/abs/2007.12865) with random and correlated masking, and for two-towers feature
dropout alone, with popularity for a yardstick; on sessions, masked items, masked attributes and
contrast. Data: MovieLens-1M (ratings of at least 4; for rankers the AutoInt authors' split),
Amazon Sports, Amazon Beauty, and a built-in world whose items have 20 correlated features (and 5
and 10 at one share).

recall@20 and NDCG@10, or AUC and log loss, overall and for the tail: items that hold the last
third of all training rows. Gains over `none` are of each query's (each row's) mean over the seeds,
with 95 % bootstrap intervals over queries (rows); a gain is called sure where its interval leaves
out zero and each of several seeds has its sign. `apart`: how often two trainings of `none` alone,
with other seeds, have an interval that leaves out zero.

    --set families=towers,rankers,sessions
    --set data=world,sports      data sets (default: all of the family)
    --set shares=1,10            per cent
    --set arms=none,correlated   some of the arms, none among them
    --set seeds=2                for all shares (default 3 up to 10 %, above it 1)
    --set features=5,10,20       of an item of the world (default 20; at 3 % of two-towers all)
    --set rates=1,0.25           factors of both learning rates (default 1; at 3 % of two-towers on
                                 the world and Sports 0.25, too)
    --set keep=rows,users        what is drawn for training: single rows, or all rows of some users,
                                 and then queries have whole histories (default rows; at 3 % of
                                 two-towers users, too)
    --set workers=2              so many runs at a time, a thread each
    --set log=FOLDER             keeps what is done; a second call goes on from there, and with
                                 train=no shows what is there
    --set plot=PATH              where --save draws (default docs/ssl_curves.png)
    --set training.patience=8    any key of the configuration, for all runs

The data on loan are needed (RECSYS_DATA), but for the world.
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _harness import Benchmark, peak_memory_mib
from _ssl_picture import draw
from _ssl_runs import ARMS, Found, Run, measured
from numpy.typing import NDArray

from recsys.metrics.classification import interval_of, resampled
from recsys.metrics.intervals import paired_difference
from recsys.training.engine.machine import keep_freed_memory

PLOT = Path(__file__).resolve().parents[2] / "docs" / "ssl_curves.png"
DATA = {
    "towers": ("world", "ml1m", "sports", "beauty"),
    "rankers": ("world", "ml1m"),
    "sessions": ("beauty",),
}
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
MOST = {("towers", "ml1m"): 0.1, ("towers", "sports"): 0.3, ("rankers", "ml1m"): 0.1}
"""Largest share where a run of more takes minutes."""
AT = 0.03
"""The share of two-towers at which further variants are measured."""
FEATURES = (20, 5, 10)
"""Of an item of the world; the first is that of all shares."""
RATES, SLOWER = (1.0, 0.25), ("world", "sports")
"""What both learning rates are multiplied by, the first at all shares, the others of these data."""
SAMPLES = 200
"""Resamples of a ranker's rows."""
FEWEST = 50
"""Queries or positive rows of a slice, below which it says nothing."""
KEEP = ("rows", "users")
"""What is drawn, the first at all shares."""
Figures = dict[str, Any]


def seeds_of(share: float, options: Mapping[str, str]) -> range:
    """Return the seeds of a share."""
    return range(int(options.get("seeds", 3 if share <= 0.1 else 1)))


def points_of(bench: Benchmark, options: Mapping[str, str]) -> list[Run]:
    """Return the plain run of seed 0 of all points."""
    families = options.get("families", ",".join(DATA)).split(",")
    found = []
    for family in families:
        chosen = bench.sized(DATA[family], DATA[family][:1], DATA[family])
        for name in options["data"].split(",") if "data" in options else chosen:
            if name not in DATA[family]:
                continue
            shares: tuple[float, ...] = bench.sized(SHARES, (0.01, 0.1), (0.5,))
            shares = tuple(one for one in shares if one <= MOST.get((family, name), 1.0))
            if "shares" in options:
                shares = tuple(float(one) / 100 for one in options["shares"].split(","))
            for share in shares:
                usual = Run(family, name, share, "none", 0, smoke=bench.smoke)
                found += _variants(usual, options)
    return found


def _variants(usual: Run, options: Mapping[str, str]) -> list[Run]:
    """Return the point with the numbers of features and learning rates that are asked for."""
    here = (usual.family, usual.share) == ("towers", AT)
    made = usual.data == "world"
    features: tuple[int, ...] = FEATURES if here and made else FEATURES[:1]
    rates: tuple[float, ...] = RATES if here and usual.data in SLOWER else RATES[:1]
    if "features" in options and made:
        features = tuple(int(one) for one in options["features"].split(","))
    if "rates" in options:
        rates = tuple(float(one) for one in options["rates"].split(","))
    keep: tuple[str, ...] = KEEP if here else KEEP[:1]
    if "keep" in options and usual.family == "towers":
        keep = tuple(options["keep"].split(","))
    first = replace(usual, features=features[0], rates=rates[0], keep=keep[0])
    return [
        first,
        *(replace(first, features=one) for one in features[1:]),
        *(replace(first, rates=one) for one in rates[1:]),
        *(replace(first, keep=one) for one in keep[1:]),
    ]


def grid(bench: Benchmark, options: Mapping[str, str], rest: tuple[str, ...]) -> list[Run]:
    """Return all runs, point by point, a seed with all arms before the next one."""
    arms = options["arms"].split(",") if "arms" in options else None
    return [
        replace(point, arm=arm, seed=seed, overrides=rest)
        for point in points_of(bench, options)
        for seed in (range(1) if bench.quick else seeds_of(point.share, options))
        for arm in ARMS[point.family]
        if arms is None or arm in arms
    ]


def kept(run: Run, folder: Path) -> Path:
    """Train, where that was not done; return the file of what was found."""
    path = folder / f"{run.name}.npz"
    if not path.is_file():
        partial = folder / f"{run.name}.partial.npz"
        measured(run).save(partial)
        partial.rename(path)
    return path


def run_all(bench: Benchmark, runs: list[Run], workers: int, folder: Path) -> dict[Run, Found]:
    """Return what all runs found, `workers` of them at a time."""
    found: dict[Run, Found] = {}
    with bench.workers(workers, keep_freed_memory) as pool:
        started = {pool.submit(kept, run, folder): run for run in runs}
        for done in as_completed(started):
            run = started[done]
            found[run] = Found.load(done.result())
            figures = found[run].figures
            bench.row(
                run.name,
                f"validation {figures['validation']:.4f}, epoch {figures['best_epoch']:.0f}, "
                f"{figures['cpu_s']:.0f} CPU s  [{len(found)}/{len(runs)}]",
            )
    return {run: found[run] for run in runs}


def metrics_of(found: Found) -> dict[str, NDArray[np.float64]]:
    """Return recall@20 and NDCG@10 of each query, one item being relevant."""
    place = found.arrays["place"].astype(np.float64)
    listed = place >= 0
    gain = 1 / np.log2(np.maximum(place, 0) + 2)
    return {
        "recall_at_20": listed.astype(np.float64),
        "ndcg_at_10": np.where(listed & (place < 10), gain, 0.0),
    }


def of_queries(arm: list[Found], plain: list[Found], inside: NDArray[np.bool_]) -> Figures:
    """Return mean metrics of lists and their gains over `plain`, seed by seed the same queries."""
    figures: Figures = {}
    own, other = ([metrics_of(one) for one in both] for both in (arm, plain))
    for name in own[0]:
        a, b = (np.mean([one[name] for one in both], axis=0)[inside] for both in (own, other))
        difference = paired_difference(a, b)
        by_seed = [
            float((x[name] - y[name])[inside].mean()) for x, y in zip(own, other, strict=True)
        ]
        figures[name] = _point(float(a.mean()), difference.low, difference.high, by_seed)
    return figures


def of_rows(arm: list[Found], plain: list[Found], inside: NDArray[np.bool_]) -> Figures:
    """Return AUC and log loss and their changes from `plain`."""

    def drawn(found: Found) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        probability, label = (found.arrays[name][inside] for name in ("probability", "label"))
        return resampled(probability.astype(np.float64), label, samples=SAMPLES, seed=0)

    own, other = ([drawn(one) for one in both] for both in (arm, plain))
    pairs = list(zip(own, other, strict=True))
    by_seed = np.array([x[0] - y[0] for x, y in pairs])
    change = np.mean([x[1] - y[1] for x, y in pairs], axis=0)
    figures: Figures = {}
    for number, name in enumerate(("auc", "log_loss")):
        interval = interval_of(0.0, change[:, number])
        mean = float(np.mean([one[0][number] for one in own]))
        figures[name] = _point(mean, interval.low, interval.high, by_seed[:, number].tolist())
    return figures


def _point(mean: float, low: float, high: float, by_seed: list[float]) -> Figures:
    off_zero = low > 0 or high < 0
    one_sign = len({one > 0 for one in by_seed}) == 1
    return {
        "mean": round(mean, 5),
        "gain": round(float(np.mean(by_seed)), 5),
        "interval": [round(low, 5), round(high, 5)],
        "by_seed": [round(one, 5) for one in by_seed],
        "sure": off_zero and one_sign and len(by_seed) > 1,
    }


def compared(arm: list[Found], plain: list[Found]) -> Figures:
    """Return the figures of all and of the tail."""
    of = of_queries if "place" in plain[0].arrays else of_rows
    arrays = plain[0].arrays
    parts = {"all": np.ones(len(arrays["tail"]), bool), "tail": arrays["tail"]}
    enough = {name: inside for name, inside in parts.items() if inside.sum() >= FEWEST}
    return {name: {**of(arm, plain, inside)} for name, inside in (enough or parts).items()}


def summary(bench: Benchmark, found: Mapping[Run, Found]) -> list[Figures]:
    """Return one entry a point: arms, their figures, and how often `none` differs from itself."""
    points: dict[Run, dict[str, dict[int, Found]]] = {}
    for run, one in found.items():
        point = replace(run, arm="", seed=0)
        points.setdefault(point, {}).setdefault(run.arm, {})[run.seed] = one
    entries = []
    for point, arms in points.items():
        plain = arms.get("none", {})
        if not plain:
            continue
        entry: Figures = {
            "family": point.family,
            "data": point.data,
            "percent": point.share * 100,
            "features": point.features if point.data == "world" else None,
            "rates": point.rates,
            "keep": point.keep,
            "arms": {},
        }
        for arm, of_arm in arms.items():
            seeds = sorted(of_arm.keys() & plain.keys())
            if not seeds:
                continue
            figures = compared([of_arm[one] for one in seeds], [plain[one] for one in seeds])
            ran = [of_arm[one].figures for one in seeds]
            entry["arms"][arm] = {
                **figures,
                "seeds": len(seeds),
                "training_rows": ran[0]["training_rows"],
                "best_epochs": [one["best_epoch"] for one in ran],
                "cpu_s": round(sum(one["cpu_s"] for one in ran), 1),
            }
            bench.row(title_of(point, arm), in_words(figures, len(seeds)))
        pairs = [
            compared([plain[a]], [plain[b]]) for a, b in itertools.combinations(sorted(plain), 2)
        ]
        entry["apart"] = [_apart(pairs), _count(pairs)]
        entries.append(entry)
    return entries


def title_of(point: Run, arm: str) -> str:
    """Return a line's label."""
    of = f"{point.data}, {point.features} features" if point.data == "world" else point.data
    slower = f", rates x {point.rates:g}" if point.rates != 1 else ""
    return f"{point.family} {of}, {point.share * 100:g} % of {point.keep}{slower}: {arm}"


def _count(pairs: list[Figures]) -> int:
    return sum(len(part) for one in pairs for part in one.values())


def _apart(pairs: list[Figures]) -> int:
    points = [point for one in pairs for part in one.values() for point in part.values()]
    return sum(point["interval"][0] > 0 or point["interval"][1] < 0 for point in points)


def in_words(figures: Figures, seeds: int) -> str:
    """Return one line: the first metric and its gain, part by part."""
    words = []
    for part, metrics in figures.items():
        name, one = next(iter(metrics.items()))
        low, high = one["interval"]
        mark = " sure" if one["sure"] else ""
        words.append(
            f"{part} {name} {one['mean']:.4f} ({one['gain']:+.4f} [{low:+.4f}, {high:+.4f}]{mark})"
        )
    return ", ".join(words) + f", seeds {seeds}"


def main() -> None:
    bench = Benchmark("ssl_curves", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    rest = tuple(f"{key}={value}" for key, value in given.items() if "." in key)
    keep_freed_memory()
    runs = grid(bench, given, rest)
    with tempfile.TemporaryDirectory(prefix="ssl_curves-") as temporary:
        folder = Path(given.get("log", temporary))
        folder.mkdir(parents=True, exist_ok=True)
        if given.get("train") == "no":
            runs = [run for run in runs if (folder / f"{run.name}.npz").is_file()]
            if not runs:
                sys.exit(f"{folder} holds no run of these")
        found = run_all(bench, runs, int(given.get("workers", 1)), folder)
    points = summary(bench, found)
    totals = [sum(one["apart"][place] for one in points) for place in (0, 1)]
    bench.row("none against itself, other seeds", f"{totals[0]} of {totals[1]} intervals off zero")
    if bench.save and not bench.quick:
        draw(points, Path(given.get("plot", PLOT)))
    figures = {"points": points, "apart": totals, "arms": ARMS}
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
