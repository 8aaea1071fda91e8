"""Who will take films that are not out yet? Collaborative metric learning on MovieLens-1M.

A rating of 4 and more is a film taken. All ratings of a tenth of the films are the test part, all
of another tenth the validation part: of either no model sees a row. `latest`: the newest films by
year, the validation films just before them; `random`: drawn by the seed. Films are known by their
genres and a vector of title words and genres (TF-IDF and a truncated SVD fitted on the training
films), users by gender, age, occupation and history; there are no ids of either.

Beside the two-tower with the loss of Hsieh et al. (WWW 2017) in the unit ball, as in Campo et al.
(https://arxiv.org/abs/1803.00202), stand the same towers with a sampled softmax on the sphere, the
inner product of the item vector with the mean over the history, and what a user's genres and the
popularity of a genre tell. All scores become probabilities by one logistic regression on the score
and the log of the history's length, fitted on the validation films
(`recsys.training.families.two_tower.pair_calibrating`).

Per test film, over all users: AUC (films that at least 5 took) of the probability and of the score
alone, the rank correlation of expected and actual audience; per user recall@20 among the test
films; over all pairs expected calibration error and log loss, of isotonic maps too, and the error
before, with sigmoid(score) as probability. `reliability` holds 20 bins of equal size.

    --set seeds=1            fewer seeds (default 3)
    --set splits=latest      one of the splits
    --set methods=metric     some of the methods
    --set training.epochs=4  any key of the configuration, for all two-towers

Needs the data on loan (RECSYS_DATA).
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
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
from autoint_ml1m import nested
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.bundle.pair_calibration import PairCalibrator
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.pair_sample import PairSample, released_items, sample_pairs
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.metrics.classification import auc, calibration, log_loss
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config
from recsys.training.families.loading import load_data
from recsys.training.families.two_tower.pair_calibrating import fit_pairs, pair_scores
from recsys.training.families.two_tower.task import two_tower_task

Scores = Callable[[PairSample, int], NDArray[np.float32]]
"""Pairs and the part that they are of to a score of each, (P,)."""

VECTOR_DIM, SHARE, LEAST_TAKERS = 32, 0.1, 5
TRAINING: dict[str, Any] = {
    "batch_size": 1024,
    "epochs": 3,
    "patience": 1,
    "metric": "recall_at_100",
    "examples": "rows",
    "negative_items": "trained",
}
METHODS: dict[str, dict[str, Any]] = {
    "metric": {"model": {"geometry": "ball"}, "training": {"loss": {"kind": "metric"}}},
    "metric sphere": {"training": {"loss": {"kind": "metric"}}},
    "softmax": {"training": {"loss": "sampled_softmax"}},
}
BASELINES = ("history mean", "genres")


def write_tables(folder: Path, split: str, seed: int) -> None:
    """Write the log with its parts, and the films with their vectors."""
    ratings = pq.read_table(loaned("ml-1m") / "ratings.parquet")
    taken = pc.and_(
        pc.greater_equal(ratings["rating"], 4), pc.greater_equal(ratings["position"], 0)
    )
    ratings = ratings.filter(taken)
    movies = pq.read_table(loaned("ml-1m") / "movies.parquet")
    ids = np.asarray(movies["movie_id"])
    rated = np.isin(ids, np.asarray(ratings["movie_id"]))
    rng = np.random.default_rng(seed)
    key = np.asarray(movies["year"]) if split == "latest" else rng.random(len(ids))
    # Films of one year in an order drawn by the seed.
    order = np.lexsort((rng.random(len(ids)), -key))
    order = order[rated[order]]
    size = round(SHARE * len(order))
    test, validation = ids[order[:size]], ids[order[size : 2 * size]]
    film = np.asarray(ratings["movie_id"])
    part = np.where(np.isin(film, test), "test", "train")
    part = np.where(np.isin(film, validation), "validation", part)
    log = ratings.select(["user_id", "movie_id", "position"]).append_column("part", pa.array(part))
    pq.write_table(log, folder / "log.parquet")
    known = np.isin(ids, ids[order[2 * size :]])
    vectors = text_vectors(movies, known)
    flat = pa.array(vectors.astype(np.float32).ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, VECTOR_DIM)
    films = movies.select(["movie_id", "genres"]).append_column("plot", lists)
    pq.write_table(films, folder / "films.parquet")


def text_vectors(movies: pa.Table, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a vector of the title words and genres of each film, fitted on the known ones."""
    titles = [title.rsplit(" (", 1)[0] for title in movies["title"].to_pylist()]
    genres = [text.replace("-", "").replace("|", " ") for text in movies["genres"].to_pylist()]
    texts = [f"{title} {genre}" for title, genre in zip(titles, genres, strict=True)]
    words = TfidfVectorizer(min_df=2, stop_words="english", sublinear_tf=True)
    fitted = words.fit_transform([text for text, one in zip(texts, known, strict=True) if one])
    svd = TruncatedSVD(VECTOR_DIM, random_state=0).fit(fitted)
    vectors: NDArray[np.float64] = svd.transform(words.transform(texts))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def config_of(
    folder: Path, method: dict[str, Any], seed: int, extra: dict[str, Any]
) -> ExperimentConfig:
    """Return the experiment; films and users have no ids in it."""
    users = [
        {"name": name, "table": "users", "kind": "categorical"}
        for name in ("gender", "age", "occupation")
    ]
    items: list[dict[str, Any]] = [
        {"name": "genres", "table": "items", "kind": "multi_categorical", "separator": "|"},
        {"name": "plot", "table": "items", "kind": "vector", "dim": VECTOR_DIM},
    ]
    raw = {
        "data": {
            "interactions": str(folder / "log.parquet"),
            "items": str(folder / "films.parquet"),
            "users": str(loaned("ml-1m") / "users.parquet"),
        },
        "schema": {
            "interactions": {"user": "user_id", "item": "movie_id", "order": "position"},
            "items": {"key": "movie_id"},
            "users": {"key": "user_id"},
            "features": [*users, *items],
        },
        "split": {"kind": "column", "column": "part"},
        "model": {"kind": "two_tower", **method.get("model", {}), **extra.get("model", {})},
        "embedding": {"num_rows": 4096, **extra.get("embedding", {})},
        "training": {
            **TRAINING,
            "seed": seed,
            **method.get("training", {}),
            **extra.get("training", {}),
        },
        "calibration": "logistic",
    }
    return parse_config(raw, source="cml_release")


def trained_scores(config: ExperimentConfig, data: Dataset) -> tuple[Scores, dict[str, float]]:
    """Train a two-tower; return its scores of pairs and what training took."""
    validation = build_queries(
        data,
        VALIDATION,
        history_length=config.model.history_length,
        filter_seen=True,
        limit=config.training.max_validation_queries,
        seed=0,
    )
    started = time.process_time()
    task = two_tower_task(config, data, validation, World())
    with tempfile.TemporaryDirectory(prefix="cml_release-") as folder:
        state = fit(task, config.training, Checkpoints(Path(folder)))
    model = task.trained.model
    assert isinstance(model, TwoTower)
    facts = {
        "cpu_s": round(time.process_time() - started, 1),
        "best_epoch": round((state.best_step or 0) / task.num_steps, 2),
        "validation_recall_at_100": round(state.best_metric or 0.0, 5),
    }
    return lambda sample, part: pair_scores(model, data, sample), facts


def history_mean(data: Dataset) -> Scores:
    """Score by the inner product of a film's vector and the mean vector of the history."""
    first = data.encoder.layout("items").dense.index("plot.0")
    vectors = data.items.dense[:, first : first + VECTOR_DIM].numpy()

    def score(sample: PairSample, part: int) -> NDArray[np.float32]:
        history = whole_histories(data, part)
        mean = history @ vectors / np.maximum(history.sum(1, keepdims=True), 1)
        found: NDArray[np.float32] = np.einsum(
            "pe,pe->p", mean[sample.query], vectors[sample.item_row]
        )
        return found

    return score


def genre_shares(data: Dataset) -> Scores:
    """Score by the popularity of a film's genres, weighed by the user's share of each."""
    genres = data.items.multi[0]
    names, code = np.unique(genres.values.numpy(), return_inverse=True)
    member = np.zeros((data.num_items, len(names)), np.float32)
    film = np.repeat(np.arange(data.num_items), genres.lengths().numpy())
    member[film, code] = 1
    trained = (data.train_counts > 0).astype(np.float32)
    popularity = data.train_counts @ member / np.maximum(trained @ member, 1)

    def score(sample: PairSample, part: int) -> NDArray[np.float32]:
        counts = whole_histories(data, part) @ member
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        weights = (share * popularity)[sample.query]
        of_film = member[sample.item_row]
        found: NDArray[np.float32] = (weights * of_film).sum(1) / np.maximum(of_film.sum(1), 1)
        return found

    return score


def whole_histories(data: Dataset, part: int) -> NDArray[np.float32]:
    """Return who took what before `part`, (Q, n_items) of 0 and 1, users as in `PairSample`."""
    before = data.histories((TRAIN,) if part == VALIDATION else (TRAIN, VALIDATION))
    users = np.flatnonzero(before.lengths() > 0)
    lists = before.last(users)
    found = np.zeros((len(users), data.num_items), np.float32)
    found[np.repeat(np.arange(len(users)), lists.lengths().numpy()), lists.values.numpy()] = 1
    return found


def samples_of(data: Dataset, history_length: int) -> dict[str, PairSample]:
    """Return all pairs of users with the validation and with the test films."""

    def pairs(part: int) -> PairSample:
        films = released_items(data, part)
        return sample_pairs(
            data, part, films, history_length=history_length, filter_seen=True, most=10**8
        )

    parts = {"validation": VALIDATION, "test": TEST}
    return {name: pairs(part) for name, part in parts.items()}


def evaluate(score: Scores, samples: dict[str, PairSample]) -> dict[str, Any]:
    """Return the figures of a method on the test films."""
    own, test = samples["validation"], samples["test"]
    fitted_on = (score(own, VALIDATION), own.num_events[own.query], own.label, own.weight)
    calibrator, steps = (fit_pairs(kind, *fitted_on) for kind in ("logistic", "isotonic"))
    raw, events = score(test, TEST), test.num_events[test.query]
    probability, stepped = (one.probability(raw, events) for one in (calibrator, steps))
    after = calibration(probability, test.label)
    found = {
        **film_figures(probability, test),
        "score_film_auc": film_figures(raw.astype(np.float64), test)["film_auc"],
        "recall_at_20": recall(raw, test, 20),
        "pair_auc": auc(probability, test.label),
        "error": after.error,
        "error_before": calibration(PairCalibrator().probability(raw, events), test.label).error,
        "isotonic_error": calibration(stepped, test.label).error,
        "isotonic_log_loss": log_loss(stepped, test.label),
        "log_loss": log_loss(probability, test.label),
        "log_loss_of_rate": log_loss(np.full(len(raw), test.label.mean()), test.label),
        "expected": float(probability.sum()),
        "taken": float(test.label.sum()),
        "slope": calibrator.slope,
        "activity": calibrator.activity,
    }
    bins = {"predicted": after.predicted, "observed": after.observed}
    return {
        **{name: round(value, 5) for name, value in found.items()},
        "reliability": {name: values.round(5).tolist() for name, values in bins.items()},
    }


def film_figures(probability: NDArray[np.float64], test: PairSample) -> dict[str, float]:
    """Return the mean AUC of a film over users, and how expected audiences order the films."""
    order = np.argsort(test.item_row, kind="stable")
    films, starts = np.unique(test.item_row[order], return_index=True)
    label, p = np.split(test.label[order], starts[1:]), np.split(probability[order], starts[1:])
    areas = [
        auc(chance, took)
        for took, chance in zip(label, p, strict=True)
        if took.sum() >= LEAST_TAKERS
    ]
    actual, expected = [one.sum() for one in label], [one.sum() for one in p]
    orders = np.ptp(expected) > 0 < np.ptp(actual)  # without it there is no correlation
    return {
        "film_auc": float(np.mean(areas)),
        "audience_rank": float(spearmanr(expected, actual).statistic) if orders else 0.0,
        "films": float(len(films)),
    }


def recall(score: NDArray[np.float32], test: PairSample, k: int) -> float:
    """Return recall@k of each user among the test films, the mean over users who took any."""
    _, starts = np.unique(test.query, return_index=True)
    found = []
    for one, took in zip(
        np.split(score, starts[1:]), np.split(test.label, starts[1:]), strict=True
    ):
        if took.any():
            best = np.argsort(-one, kind="stable")[:k]
            found.append(took[best].sum() / took.sum())
    return float(np.mean(found))


def run(
    bench: Benchmark, split: str, seed: int, methods: list[str], extra: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the figures of every method on one split and seed."""
    torch.set_num_threads(1)
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="cml_release-") as temporary:
        folder = Path(temporary)
        write_tables(folder, split, seed)
        config = config_of(folder, METHODS["metric"], seed, extra)
        data = load_data(config)
        samples = samples_of(data, config.model.history_length)
        fixed = {"history mean": history_mean, "genres": genre_shares}
        for name in methods:
            if name in fixed:
                score, facts = fixed[name](data), {}
            else:
                own = config_of(folder, METHODS[name], seed, extra)
                score, facts = trained_scores(own, data)
            figures[name] = {**facts, **evaluate(score, samples)}
            shown = {key: one for key, one in figures[name].items() if key != "reliability"}
            bench.row(f"{split} {seed} {name}", str(shown))
    return figures


def main() -> None:
    bench = Benchmark("cml_release", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    loaned("ml-1m")
    keep_freed_memory()
    extra = nested(given)
    if bench.quick:
        extra.setdefault("training", {}).setdefault("epochs", 1)
    seeds = range(int(given.get("seeds", 1 if bench.quick else 3)))
    splits = given.get("splits", "latest" if bench.quick else "latest,random").split(",")
    methods = given.get("methods", ",".join([*METHODS, *BASELINES])).split(",")
    figures: dict[str, Any] = {"seeds": list(seeds), "training": TRAINING}
    for split in splits:
        runs = [run(bench, split, seed, methods, extra) for seed in seeds]
        for name in methods:
            figures[f"{split}: {name}"] = [one[name] for one in runs]
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
