"""Four ideas for two-towers beside the default: distance, soft positives, concepts, prototypes.

    default       the configuration that `recsys init` writes, cosines and the sampled softmax
    snr           signal-to-noise distance in place of the cosine (loss_methods/snr.py)
    cwcl          softmax with continuous weights of similar items (loss_methods/weighted.py)
    concepts      dimensions that are declared attributes (loss_methods/concepts.py)
    prototypes    queries far from training answered by prototypes (loss_methods/prototypes.py)

MovieLens-1M (each user's last 30 ratings, all users) and Amazon Beauty, with all metadata of their
tables, leave one out, the whole catalogue ranked, at most 6 epochs. Of every method the settings
with the best validation recall@20 of seed 0 are trained with every seed; differences to `default`
are of each query's mean over the seeds, with 95 % bootstrap intervals over the queries. Prototypes
are fitted to the default's vectors of the validation queries, which know the training rows alone;
they and the default are compared on the same queries as they are, and as those of users unknown in
training: without the id and with the last 3 items, the last, or none. Their settings are those of
the best mean over these four, on the validation queries.

    --set data=beauty            one of the data sets (default ml1m,beauty)
    --set seeds=1                fewer seeds (default 2)
    --set methods=snr,concepts   some of the methods beside the default
    --set training.epochs=4      any key of the configuration, for all runs

Needs the data on loan (RECSYS_DATA).
"""

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark, peak_memory_mib
from _loaned import loaned
from loss_methods.concepts import ConceptTower, concept_loss, most_common
from loss_methods.prototypes import Prototypes
from loss_methods.snr import SnrTower
from loss_methods.weighted import cosines, incidence, weighted_softmax_loss
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recsys.data.batch import Jagged, PairBatch
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.propose.tables import infer
from recsys.losses.retrieval import Pairs
from recsys.metrics.intervals import paired_difference
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower, TwoTowerConfig
from recsys.retrieval.topk import exact_topk
from recsys.training.engine.checkpoint import Checkpoints, Trained
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.optim import build_optimizer
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.retrieval.validation import Validation
from recsys.training.families.two_tower.config import TwoTowerExperiment
from recsys.training.families.two_tower.objective import RetrievalObjective
from recsys.training.families.two_tower.task import two_tower_task

METRICS = ("recall_at_20", "ndcg_at_10")
DECIDES = METRICS[0]
LAST = 30
"""Ratings of a user of MovieLens that are kept."""
SLICES = {"as they are": None, "unknown, last 3": 3, "unknown, last 1": 1, "unknown, none": 0}
OVERRIDES = ("training.epochs=6", "training.patience=2", "evaluation.ks=[10,20]")
GRID: dict[str, list[dict[str, Any]]] = {
    "snr": [{"temperature": 0.07}, {"temperature": 0.5}],
    "cwcl": [
        {"items": "co-occurrence", "power": 4.0},
        {"items": "attributes", "power": 8.0},
    ],
    "concepts": [{"named": 64, "dim": 64}, {"named": 32, "dim": 64}],
}
"""Settings by method; of concepts a data set may have fewer than `named`."""
FAR = [
    {"count": count, "share": share, "blend": blend}
    for count, share, blend in itertools.product((8, 64), (0.05, 0.3), (0.3, 1.0))
]
CONCENTRATION = 20.0
Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Studied:
    """A data set: its experiment, its rows, and the queries of both parts."""

    config: TwoTowerExperiment
    data: Dataset
    parts: dict[str, Queries]


def write_rows(name: str, folder: Path) -> list[Path]:
    """Write the log into `folder`; return the tables of an experiment on it."""
    if name == "ml1m":
        log = pq.read_table(loaned("ml-1m") / "ratings.parquet")
        user, position = np.asarray(log["user_id"]), np.asarray(log["position"])
        longest = np.zeros(user.max() + 1, np.int64)
        np.maximum.at(longest, user, position)
        kept = (position >= 0) & (position > longest[user] - LAST)
        log = log.take(pa.array(np.flatnonzero(kept))).select(["user_id", "movie_id", "position"])
        others = [loaned("ml-1m") / one for one in ("movies.parquet", "users.parquet")]
    else:
        log = pq.read_table(loaned("amazon-beauty") / "interactions.parquet")
        others = [loaned("amazon-beauty") / "items.parquet"]
    pq.write_table(log, folder / "rows.parquet")
    return [folder / "rows.parquet", *others]


def studied(name: str, overrides: tuple[str, ...]) -> Studied:
    """Read a data set as `recsys init` would declare it."""
    with tempfile.TemporaryDirectory(prefix="losses-") as temporary:
        path = Path(temporary) / "recsys.yaml"
        path.write_text(infer(write_rows(name, Path(temporary))).yaml)
        config = load_config(path, (*OVERRIDES, *overrides))
        assert isinstance(config, TwoTowerExperiment)
        data = load_data(config)
    length, most = config.model.history_length, config.training.max_validation_queries

    def queries(part: int, limit: int) -> Queries:
        return build_queries(
            data, part, history_length=length, filter_seen=True, limit=limit, seed=0
        )

    parts = {"validation": queries(VALIDATION, most), "test": queries(TEST, data.num_users)}
    return Studied(config, data, parts)


def unknown_users(queries: Queries, data: Dataset, last: int | None) -> Queries:
    """Return them without the users' ids and with the `last` items alone; None: as they are."""
    if last is None:
        return queries
    assert isinstance(queries.history, Jagged)
    names = [feature for feature, _ in data.encoder.layout("users").single]
    absent = data.encoder.encode("users", pa.table({name: pa.nulls(1) for name in names}))
    place = names.index("user_id")
    single = queries.block.single.clone()
    single[:, place] = absent.single[0, place]
    history = queries.history
    length = history.lengths().clamp(max=last)
    offsets = torch.cat([length.new_zeros(1), length.cumsum(0)])
    first = torch.repeat_interleave(history.offsets[1:] - offsets[1:], length)
    history = Jagged(history.values[first + torch.arange(len(first))], offsets)
    return replace(queries, block=replace(queries.block, single=single), history=history)


class Weighted(RetrievalObjective):
    """The objective with the weighted softmax."""

    def __init__(self, similarity_NN: Tensor, *args: Any) -> None:
        super().__init__(*args)
        self.similarity = similarity_NN

    def _loss(self, query: Tensor, candidate: Tensor, batch: PairBatch, _: PairBatch) -> Tensor:
        rows = batch.item_rows[: batch.num_candidates]
        weight_PC = self.similarity[rows[batch.positive]][:, rows].float()
        pairs = Pairs(batch.asks, batch.positive, batch.weight)
        scaled = query / self.model.temperature
        return weighted_softmax_loss(
            scaled, candidate, pairs, batch.not_negative, weight_PC, batch.log_inclusion
        )


class WithConcepts(RetrievalObjective):
    """The objective, and whether named dimensions say what is declared."""

    def __init__(self, declared_NV: Tensor, *args: Any) -> None:
        super().__init__(*args)
        self.declared = declared_NV

    def __call__(self, batch: PairBatch) -> Tensor:
        own = super().__call__(batch)
        assert isinstance(self.model, ConceptTower)
        return own + concept_loss(self.model.logits, self.declared[batch.item_rows])


def similarity(data: Dataset, of: str, power: float) -> Tensor:
    """Return how like items are by their attributes, or by who took them, (N, N)."""
    if of == "attributes":
        members = incidence(data.items.multi[-1])
        rarity = np.log(data.num_items / np.asarray(members.sum(0)).ravel())
        return cosines(members, rarity.astype(np.float32), power)
    events, rows = data.tables.events, data.events_of((TRAIN,))
    place = (events.item_row[rows], events.user_row[rows])
    taken = sparse.csr_matrix(
        (np.ones(len(rows), np.float32), place), (data.num_items, data.num_users)
    )
    return cosines(taken, np.ones(data.num_users, np.float32), power)


def train(
    one: Studied, method: str, settings: dict[str, Any], seed: int
) -> tuple[TwoTower, dict[str, Any]]:
    """Train one model; return it as it was best, and what it took."""
    started, data = time.process_time(), one.data
    keys: dict[str, Any] = {key: settings[key] for key in ("temperature", "dim") if key in settings}
    build: Callable[[TwoTowerConfig, UnifiedEmbedding], TwoTower] = TwoTower
    objective: Callable[..., RetrievalObjective] = RetrievalObjective
    if method == "snr":
        build, keys["geometry"] = SnrTower, "dot"
    if method == "cwcl":
        like = similarity(data, settings["items"], settings["power"])
        objective = partial(Weighted, like)
    if method == "concepts":
        declared = most_common(data.items.multi[-1], settings["named"])
        count = declared.shape[1]
        keys["dim"] = count if settings["named"] == settings["dim"] else settings["dim"]
        build = partial(ConceptTower, count=count)
        objective = partial(WithConcepts, declared)
    config = one.config.model_copy(
        update={
            "model": one.config.model.model_copy(update=keys),
            "training": one.config.training.model_copy(update={"seed": seed}),
        }
    )
    world, training = World(), config.training
    task = two_tower_task(config, data, one.parts["validation"], world)
    plain = task.trained.model
    assert isinstance(plain, TwoTower)
    model = build(config.model, plain.embedding)
    optimizer = build_optimizer(
        model, learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )
    task = replace(
        task,
        trained=Trained(model, model.embedding.table, optimizer),
        loss=objective(model, data, training, world, world.device),
        validate=Validation(model, data, one.parts["validation"], config, world),
    )
    with tempfile.TemporaryDirectory(prefix="losses-") as folder:
        state = fit(task, training, Checkpoints(Path(folder)))
    return model, {
        "seed": seed,
        "best_epoch": (state.best_step or 0) // task.num_steps,
        "cpu_s": round(time.process_time() - started, 1),
    }


def evaluate(
    one: Studied, model: TwoTower, queries: Queries, moved: Callable[[Tensor], Tensor] | None = None
) -> Values:
    """Return each query's metrics; `moved`: what becomes of query vectors."""
    items = catalogue_vectors(model, one.data.items)
    vectors = query_vectors(model, queries.block, items, queries.history)
    top = exact_topk(moved(vectors) if moved else vectors, items, 20, queries.seen)[1]
    found = ranking_metrics(top, queries.relevant, (10, 20))
    return {metric: np.asarray(found[metric], np.float64) for metric in METRICS}


def mean_of(values: list[Values]) -> Values:
    """Return each query's mean over the seeds."""
    return {metric: np.mean([one[metric] for one in values], axis=0) for metric in METRICS}


def described(values: Values, plain: Values) -> dict[str, Any]:
    """Return the metrics and their differences to the default with intervals."""
    found: dict[str, Any] = {"queries": len(values[DECIDES])}
    for metric in METRICS:
        gain = paired_difference(values[metric], plain[metric])
        found[metric] = round(float(values[metric].mean()), 5)
        found[f"{metric}_gain"] = [round(x, 5) for x in (gain.mean, gain.low, gain.high)]
    return found


def words_of(found: dict[str, Any]) -> str:
    """Return one line of `described`."""
    return ", ".join(
        "{} {:.4f} ({:+.4f} [{:+.4f}, {:+.4f}])".format(m, found[m], *found[f"{m}_gain"])
        for m in METRICS
    )


def compare(
    bench: Benchmark, name: str, one: Studied, methods: list[str], seeds: int
) -> dict[str, Any]:
    """Return the figures of all methods that are trained, and of prototypes."""
    figures: dict[str, Any] = {}
    plain: dict[str, Values] = {}
    for method in ("default", *methods):
        points = GRID.get(method, [{}])
        points = points[:1] if bench.quick else points
        first = [(train(one, method, point, 0), point) for point in points]
        tried = [evaluate(one, model, one.parts["validation"]) for (model, _), _ in first]
        means = [round(float(values[DECIDES].mean()), 5) for values in tried]
        (model, facts), settings = first[int(np.argmax(means))]
        runs = [(model, facts), *(train(one, method, settings, s) for s in range(1, seeds))]
        own: dict[str, Any] = {
            "settings": settings,
            "tried": [{**p, DECIDES: mean} for p, mean in zip(points, means, strict=True)],
            "runs": [facts for _, facts in runs],
        }
        for part, queries in one.parts.items():
            values = mean_of([evaluate(one, model, queries) for model, _ in runs])
            own[part] = described(values, plain.setdefault(part, values))
            bench.row(f"{name} {method} {part}", words_of(own[part]))
        seconds = sum(facts["cpu_s"] for _, facts in runs)
        bench.row(f"{name} {method}", f"{settings}, {own['tried']}, {seconds:.0f} CPU s")
        figures[method] = own
        if method == "default":
            figures["prototypes"] = with_prototypes(bench, name, one, [model for model, _ in runs])
    return figures


def with_prototypes(
    bench: Benchmark, name: str, one: Studied, models: list[TwoTower]
) -> dict[str, Any]:
    """Return the figures of prototypes on queries as they are and of unknown users."""
    fitted: dict[tuple[int, int], Prototypes] = {}
    for number, model in enumerate(models):
        items = catalogue_vectors(model, one.data.items)
        known = one.parts["validation"]  # their histories are the training rows
        vectors = query_vectors(model, known.block, items, known.history)
        for count in {int(point["count"]) for point in FAR}:
            fitted[number, count] = Prototypes.fit(vectors, count, CONCENTRATION)

    def values(point: dict[str, Any] | None, queries: Queries, number: int) -> Values:
        if point is None:
            return evaluate(one, models[number], queries)
        own = fitted[number, point["count"]]
        return evaluate(
            one, models[number], queries, lambda q: own.answer(q, point["share"], point["blend"])
        )

    slices = {
        part: {of: unknown_users(queries, one.data, last) for of, last in SLICES.items()}
        for part, queries in one.parts.items()
    }
    points = FAR[:1] if bench.quick else FAR
    means = [
        np.mean(
            [values(p, queries, 0)[DECIDES].mean() for queries in slices["validation"].values()]
        )
        for p in points
    ]
    chosen = points[int(np.argmax(means))]
    tried = [{**p, DECIDES: round(float(m), 5)} for p, m in zip(points, means, strict=True)]
    figures: dict[str, Any] = {"settings": chosen, "tried": tried}
    bench.row(f"{name} prototypes", f"{chosen}, {tried}")
    for of, queries in slices["test"].items():
        both = [
            mean_of([values(p, queries, number) for number in range(len(models))])
            for p in (None, chosen)
        ]
        figures[of] = described(both[1], both[0])
        bench.row(f"{name} prototypes {of}", words_of(figures[of]))
    return figures


def main() -> None:
    bench = Benchmark("losses", __doc__ or "")
    own = {
        "data": bench.sized("ml1m,beauty", "ml1m,beauty", "ml1m"),
        "seeds": "1" if bench.quick else "2",
        "methods": ",".join(GRID),
    }
    given = dict(override.split("=", 1) for override in bench.overrides)
    own |= {key: given.pop(key) for key in list(given) if key in own}
    rest = tuple(f"{key}={value}" for key, value in given.items())
    if bench.quick:
        small = (*SMALL_MODEL, *SMALL_TRAINING) if bench.smoke else ()
        rest = (*small, "training.epochs=1", *rest)
    torch.set_num_threads(1)
    keep_freed_memory()
    figures: dict[str, Any] = {}
    for name in own["data"].split(","):
        one = studied(name, rest)
        rows = len(one.data.events_of((TRAIN,)))
        found = compare(bench, name, one, own["methods"].split(","), int(own["seeds"]))
        figures[name] = {"items": one.data.num_items, "training_rows": rows, "methods": found}
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
