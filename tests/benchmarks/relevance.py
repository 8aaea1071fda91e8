"""Lists that end where relevance does: how short they are for the recall that they keep.

    ml1m     MovieLens-1M, leave one out      sports   Amazon Sports and Outdoors, leave one out

A small two-tower and a small session transformer of each, trained for an epoch or a few. From lists
of 20 and of 100 items for the validation users come the thresholds; on the test users is measured:

    length   one length for all users        score   one threshold of the raw score
    query    the engine's map by score and query     auto   what `relevance.map: auto` chooses
    vector   a map by score and a linear function of the query's vector (the paper's way)

For each share of recall, `mean_length` is that at the threshold that keeps exactly so much on the
test users, with the paired difference to `score` (95 %), and `fitted` what the threshold of the
validation users leaves: recall kept, mean length, precision.

    --set data=sports    one of the data sets     --set families=session    one of the families

Needs the data on loan (RECSYS_DATA).
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import yaml
from _harness import Benchmark, peak_memory_mib
from _loaned import loaned
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from recsys.features.dataset.split import TEST, VALIDATION
from recsys.metrics.intervals import paired_difference
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.training.config.retrieval import RelevanceConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.evaluation.cut_lists import Floats, Kept, ScoredLists, threshold_of_recall
from recsys.training.evaluation.evaluate import vector_ranker
from recsys.training.families.load import parse_config
from recsys.training.families.loading import load_data
from recsys.training.families.retrieval.memory import fit_memory
from recsys.training.families.retrieval.relevance import find_end, scored_lists
from recsys.training.families.retrieval.relevance_map import fit_map
from recsys.training.families.session.reading import SessionData
from recsys.training.families.two_tower.reading import TwoTowerData

SHARES, LENGTHS = (0.95, 0.9, 0.8), (20, 100)
FOLDERS = {"ml1m": "ml-1m", "sports": "amazon-sports"}
EPOCHS = {"ml1m": {"two_tower": 1, "session": 1}, "sports": {"two_tower": 3, "session": 2}}
RIDGE = 10.0
Lists = tuple[ScoredLists, NDArray[np.float32]]
"""Lists, and the vectors of their queries."""


def config_of(bench: Benchmark, name: str, family: str) -> Any:
    """Return a small experiment on the tables of the benchmark of sessions of that data set."""
    raw = yaml.safe_load(Path(__file__).with_name(f"session_{name}.yaml").read_text())
    folder = loaned(FOLDERS[name])
    raw["data"] = {key: str(folder / file) for key, file in raw["data"].items()}
    raw["training"]["epochs"] = EPOCHS[name][family]
    raw["embedding"]["dim"] = 32
    raw["model"] = {**raw["model"], "dim": 64, "history_length": 50}
    raw["model"]["transformer"] = {**raw["model"]["transformer"], "num_blocks": 1}
    raw["model"]["memory"] = {"weight": 1.0}
    if family == "two_tower":
        raw["model"] = {"kind": "two_tower", "dim": 32, "history_length": 50}
        raw["training"] = {"epochs": EPOCHS[name][family], "metric": "ndcg_at_10"}
        raw["embedding"] = {"num_rows": 65536, "dim": 32}
    raw["training"]["max_validation_queries"] = bench.sized(10_000, 1000, 500)
    return parse_config({**raw, "tracking": {"enabled": False}}, source="relevance")


def lists_of(config: Any) -> tuple[Lists, Lists, float]:
    """Train; return the lists of validation and test users, and the CPU seconds of training."""
    data = load_data(config)
    reading: Any = TwoTowerData(config, data)
    if config.model.kind == "session":
        reading = SessionData.of(config, data)
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="relevance-") as folder:
        task = reading.task(reading.queries(VALIDATION, 500), World())
        fit(task, config.training, Checkpoints(Path(folder)))
    model: Any = task.trained.model
    seconds = time.process_time() - started
    fitted = fit_memory(reading, model)
    items, found = catalogue_vectors(model, data.items), []
    for part in (VALIDATION, TEST):
        queries = reading.queries(part, config.training.max_validation_queries)
        encoded = query_vectors(model, queries.block, items, queries.history)
        vectors, gain = model.without_gain(encoded)
        memory = None if fitted is None else fitted.memory
        ranker = vector_ranker(items, vectors, filter_seen=True, gain=gain, memory=memory)
        k = min(max(LENGTHS), data.num_items)
        lists = scored_lists(ranker, queries, k, float(model.temperature.detach()))
        found.append((lists, vectors.numpy()))
    return found[0], found[1], seconds


def shortened(lists: ScoredLists, k: int) -> ScoredLists:
    """Return the lists cut to k items."""
    fields: dict[str, Any] = dict(vars(lists))
    return ScoredLists(**{**fields, "scores": lists.scores[:, :k], "hit": lists.hit[:, :k]})


def by_vector(fitted_on: Lists, applied_to: Lists) -> Floats:
    """Return logits of a logistic regression on the score, the query's vector and its history."""
    lists, there = fitted_on[0], fitted_on[0].there
    middle, scale = lists.scores[there].mean(), lists.scores[there].std() + 1e-9

    def columns(of: Lists) -> Floats:
        return np.column_stack([of[1], np.log1p(of[0].num_steps)]).astype(np.float64)

    def units(of: ScoredLists) -> Floats:
        return (np.where(of.there, of.scores, middle).astype(np.float64) - middle) / scale

    raw, unit = columns(fitted_on), units(lists)
    means, scales = raw.mean(0), raw.std(0) + 1e-9

    def rows(of: Lists) -> Floats:
        return np.column_stack([np.ones(len(of[0])), (columns(of) - means) / scales])

    own = rows(fitted_on)

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = weights[0] * unit + (own @ weights[1:])[:, None]
        value = np.where(there, np.logaddexp(0, z) - lists.hit * z, 0).sum()
        error = np.where(there, expit(z) - lists.hit, 0)
        shrunk = np.r_[0, 0, weights[2:]] * RIDGE
        slopes = np.r_[(error * unit).sum(), own.T @ error.sum(1)] + shrunk
        return float(value + (shrunk * weights).sum() / 2), slopes

    start = np.zeros(1 + own.shape[1])
    start[1] = np.log(max(lists.hit[there].mean(), 1e-6))
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    z = max(found[0], 0) * units(applied_to[0]) + (rows(applied_to) @ found[1:])[:, None]
    return np.where(applied_to[0].there, z, -np.inf)


def logits_of(validation: Lists, test: Lists) -> dict[str, tuple[Floats, Floats]]:
    """Return what each way orders places by, of the validation and of the test users."""
    lists = (validation[0], test[0])
    places = [np.where(one.there, -np.arange(one.scores.shape[1]), -np.inf) for one in lists]
    maps = {name: fit_map(lists[0], by_query=name == "query") for name in ("score", "query")}
    of_maps = {name: (lists[0].logits(one), lists[1].logits(one)) for name, one in maps.items()}
    vector = (by_vector(validation, validation), by_vector(validation, test))
    return {"length": (places[0], places[1]), **of_maps, "vector": vector}


def kept_at(z: Floats, lists: ScoredLists, threshold: float) -> tuple[Kept, NDArray[np.float64]]:
    """Return what a threshold leaves, and the length of each list."""
    keep = lists.there & (z >= threshold)
    return Kept.of(lists, keep), keep.sum(1).astype(np.float64)


def measured(validation: Lists, test: Lists) -> dict[str, Any]:
    """Return the figures of each way at each share of recall."""
    ways, (own, other) = logits_of(validation, test), (validation[0], test[0])
    whole = Kept.of(other, other.there)
    found: dict[str, Any] = {"recall": whole.recall, "precision": whole.precision}
    for share in SHARES:
        scores = ways["score"][1]
        reference = kept_at(scores, other, threshold_of_recall(scores, other, share))[1]
        figures: dict[str, Any] = {}
        for name, (before, after) in ways.items():
            lengths = kept_at(after, other, threshold_of_recall(after, other, share))[1]
            less = paired_difference(lengths, reference)
            left = kept_at(after, other, threshold_of_recall(before, own, share))[0]
            figures[name] = {
                "mean_length": lengths.mean(),
                "against_score": [less.mean, less.low, less.high],
                "fitted": [left.recall / max(whole.recall, 1e-9), left.length, left.precision],
            }
        ended = find_end(own, RelevanceConfig(keep_recall=share, k=20), 0)
        reads_query = ended.relevance is not None and ended.relevance.crowd != 0
        found[str(share)] = {**figures, "auto": "query" if reads_query else "score"}
    return rounded(found)


def rounded(figures: Any) -> Any:
    """Return nested figures with four digits behind the point."""
    if isinstance(figures, Mapping):
        return {name: rounded(one) for name, one in figures.items()}
    if isinstance(figures, list):
        return [rounded(one) for one in figures]
    return figures if isinstance(figures, str) else round(float(figures), 4)


def main() -> None:
    bench = Benchmark("relevance", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    torch.set_num_threads(1)
    keep_freed_memory()
    figures: dict[str, Any] = {}
    for name in given.get("data", ",".join(FOLDERS)).split(","):
        for family in given.get("families", "two_tower,session").split(","):
            validation, test, seconds = lists_of(config_of(bench, name, family))
            figures[f"{name} {family} training_cpu_s"] = round(seconds, 1)
            for k in LENGTHS:
                own, other = ((shortened(one, k), vectors) for one, vectors in (validation, test))
                what = f"{name} {family} {k}"
                figures[what] = measured(own, other)
                for share in SHARES:
                    shown = {
                        way: one["mean_length"]
                        for way, one in figures[what][str(share)].items()
                        if isinstance(one, dict)
                    }
                    bench.row(f"{what}, recall x {share}", str(shown))
            bench.keep(figures)
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
