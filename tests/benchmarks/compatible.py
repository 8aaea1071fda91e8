"""Versions that meet: may a query tower of today search the item index of an earlier version?

Two logs that grow: MovieLens-1M (a quarter of the users, each user's first 70, 80 and 90 % of the
ratings) and Amazon Sports (the first 70, 80 and 90 % of the rows by time), asked for what comes
after 90 %, with all rows before in the histories. A version knows the items that its log holds.
Its two-tower, as `recsys init` declares it, is trained

    same seed     anew, with the seed of the version before (the default of `training.seed`)
    other seed    anew, with another seed
    warm          from the weights of the version before
    influence     anew, with the loss once more against the version before's item vectors
    items         anew, items pulled to the vectors that they had in the version before
    fixed         anew, all versions' items pulled to random directions by their ids
    simplex       anew, all versions' items pulled to a vertex of a d-simplex by their cluster
    warm items    `warm` and `items` together

and asked by recall@20 of all its test items (of those that the earlier index holds, where two
versions meet): new queries on new items, old on old, new on old and old on new. `rotated`: after
the one rotation that brings the new items nearest to the old ones that both know; `linear`: after
the linear map of queries that does so best, which need not keep lengths.

    --set data=sports       one of the data sets (default ml1m,sports)
    --set seeds=1           fewer seeds (default 2); with --save, data sets not named are kept
    --set ways=warm,items   some of the ways
    --set training.epochs=4 any key of the configuration, for all trainings

Needs the data on loan (RECSYS_DATA).
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark, peak_memory_mib
from _loaned import loaned
from loss_methods.compatible import Influence, Towards, clusters, random_targets, simplex
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.distinct import distinct, is_among
from recsys.embeddings.table import Table
from recsys.features.dataset.dataset import Dataset, encoded
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.propose.tables import infer
from recsys.metrics.intervals import paired_difference
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.retrieval.rotation import rotation_onto
from recsys.retrieval.topk import exact_topk
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.opened import rows_of
from recsys.training.families.two_tower.config import TwoTowerExperiment
from recsys.training.families.two_tower.task import two_tower_task

K = 20
CUTS = (0.7, 0.8, 0.9)
HELD_OUT = 0.05
"""Share of a version's rows, the latest, that say when to stop."""
OF_DATA = {
    "ml1m": ("training.batch_size=2048", "training.epochs=4"),
    "sports": ("training.batch_size=2048", "training.epochs=4"),
}
OVERRIDES = (
    "training.patience=2",
    f"training.metric=recall_at_{K}",
    "training.max_validation_queries=2000",
    f"evaluation.ks=[{K}]",
    "split.kind=column",
    "split.column=part",
)
WARM_EPOCHS = 2
WAYS = ("same seed", "other seed", "warm", "influence", "items", "fixed", "simplex", "warm items")
WEIGHTS = {"influence": 1.0, "items": 2.0, "fixed": 0.5, "simplex": 0.5}


@dataclass(frozen=True)
class Log:
    """A growing log: its experiment and data at every version.

    data: of the last version also with the test rows, which ask all versions.
    """

    configs: tuple[TwoTowerExperiment, ...]
    data: tuple[Dataset, ...]

    @property
    def whole(self) -> Dataset:
        """The last version's, with the test rows."""
        return self.data[-1]


@dataclass(frozen=True)
class Version:
    """A trained model in the common test.

    items (N, E): vectors of the whole catalogue, queries (Q, E). known (N,): whether the version's
    own catalogue holds the item. state: its weights, for a warm start.
    """

    items: Tensor
    queries: Tensor
    known: NDArray[np.bool_]
    state: tuple[dict[str, Tensor], Tensor]
    cpu_s: float


def columns_of(name: str) -> tuple[pa.Table, NDArray[np.float64], list[Path]]:
    """Return the log, when each row comes (a share), and the tables of items and users."""
    if name == "ml1m":
        log = pq.read_table(loaned("ml-1m") / "ratings.parquet")
        log = log.filter(pc.and_(pc.greater_equal(log["position"], 0), _quarter(log["user_id"])))
        user, position = np.asarray(log["user_id"]), np.asarray(log["position"])
        length = np.zeros(user.max() + 1)
        np.maximum.at(length, user, position + 1)
        others = [loaned("ml-1m") / one for one in ("movies.parquet", "users.parquet")]
        columns = log.select(["user_id", "movie_id", "position"])
        return columns, position / length[user], others
    log = pq.read_table(loaned("amazon-sports") / "interactions.parquet")
    when = np.asarray(log["timestamp"])
    share = np.argsort(np.argsort(when, kind="stable")) / len(when)
    instant = pa.array(when.astype("datetime64[s]"))
    log = log.drop_columns(["timestamp", "position"]).append_column("time", instant)
    return log, share, [loaned("amazon-sports") / "items.parquet"]


def _quarter(user: pa.ChunkedArray) -> pa.Array:
    return pa.array(np.asarray(user) % 4 == 0)


def grown(name: str, folder: Path, overrides: tuple[str, ...]) -> Log:
    """Read the versions of a log as `recsys init` would declare the last one."""
    rows, share, (items, *others) = columns_of(name)
    catalogue = pq.read_table(items)
    key = rows.column_names[1]
    configs, data, yaml = [], [], ""
    for number, cut in reversed(list(enumerate(CUTS))):
        part = np.where(share < cut - HELD_OUT, "train", "validation")
        part = np.where(share < cut, part, "test")
        kept = share < (cut if cut != CUTS[-1] else 1)
        own = rows.append_column("part", pa.array(part)).filter(pa.array(kept))
        place = folder / str(number)
        place.mkdir()
        ids = distinct(np.asarray(own[key]).astype(np.int64))
        mask = is_among(np.asarray(catalogue[key]).astype(np.int64), ids)
        pq.write_table(own, place / "rows.parquet")
        pq.write_table(catalogue.filter(pa.array(mask)), place / "items.parquet")
        tables = [place / "rows.parquet", place / "items.parquet", *others]
        yaml = yaml or infer(tables).yaml
        path = folder / f"{number}.yaml"
        path.write_text(yaml.replace(str(folder / str(len(CUTS) - 1)), str(place)))
        last = ("split.test=0",) if cut != CUTS[-1] else ()
        config = load_config(path, (*OVERRIDES, *last, *overrides))
        assert isinstance(config, TwoTowerExperiment)
        configs.insert(0, config)
        data.insert(0, load_data(config))
    return Log(tuple(configs), tuple(data))


def queries_of(data: Dataset, part: int, config: TwoTowerExperiment) -> Queries:
    """Return the queries of a part of the log."""
    limit = config.training.max_validation_queries if part == VALIDATION else data.num_users
    length = config.model.history_length
    return build_queries(data, part, history_length=length, filter_seen=True, limit=limit, seed=0)


def ids_of(data: Dataset) -> pa.Array:
    """Return the ids of the catalogue."""
    return data.tables.items.column(data.schema.item_key).combine_chunks()


def asked(log: Log, data: Dataset, config: TwoTowerExperiment, model: TwoTower) -> dict[str, Any]:
    """Return what the common test gets of a model that knows the encoder of `data`."""
    whole = log.whole
    encoder: FeatureEncoder = data.encoder
    common = encoded(encoder.schema, whole.tables, whole.part, encoder)
    queries = queries_of(common, TEST, config)
    items = catalogue_vectors(model, common.items)
    vectors = query_vectors(model, queries.block, items, queries.history)
    known = rows_of(ids_of(whole), ids_of(data)) >= 0
    return {"items": items, "queries": vectors, "known": known}


def trained(
    log: Log,
    number: int,
    seed: int,
    objective: Callable[..., Any] | None = None,
    start: Version | None = None,
) -> Version:
    """Train one version, from the weights of `start` where given."""
    started = time.process_time()
    config, data = log.configs[number], log.data[number]
    training = config.training.model_copy(update={"seed": seed})
    if start is not None:
        training = training.model_copy(update={"epochs": min(WARM_EPOCHS, training.epochs)})
    config = config.model_copy(update={"training": training})
    task = two_tower_task(config, data, queries_of(data, VALIDATION, config), World())
    model: Any = task.trained.model
    table: Table = task.trained.table
    if start is not None:
        model.load_state_dict(start.state[0])
        with torch.no_grad():
            table.weight.copy_(start.state[1])
    if objective is not None:
        world = World()
        task = replace(task, loss=objective(model, data, training, world, world.device))
    with tempfile.TemporaryDirectory(prefix="compatible-") as folder:
        fit(task, training, Checkpoints(Path(folder)))
    cpu_s = time.process_time() - started
    state = ({name: one.clone() for name, one in model.state_dict().items()}, table.weight.clone())
    return Version(**asked(log, data, config, model), state=state, cpu_s=round(cpu_s, 1))


def beside(log: Log, number: int, vectors_NE: Tensor, known: NDArray[np.bool_]) -> Tensor:
    """Return the vectors that the items of a version have beside it, NaN where they have none."""
    place = rows_of(ids_of(log.data[number]), ids_of(log.whole))
    found = vectors_NE[place].clone()
    found[torch.from_numpy(~known[place])] = torch.nan
    return found


def chain(log: Log, way: str, seed: int, first: Version) -> list[Version]:
    """Train all versions in one way; `first`: of the plain first version."""
    width = log.configs[0].model.dim
    weight = WEIGHTS.get(way.removeprefix("warm "), 0.0)
    versions = [first]
    if way in ("fixed", "simplex"):
        ids = np.asarray(ids_of(log.whole)).tolist()
        targets, known = random_targets(ids, width), np.ones(len(ids), bool)
        if way == "simplex":
            targets, known = simplex(width)[clusters(first.items, width + 1)], first.known
        own = beside(log, 0, targets, known)
        versions = [trained(log, 0, seed, partial(Towards, own, weight))]
    for number in range(1, len(CUTS)):
        before = versions[-1]
        other = seed if way != "other seed" else 100 * number + seed
        objective = None
        if way in ("fixed", "simplex"):
            objective = partial(Towards, beside(log, number, targets, known), weight)
        elif weight:
            kind = Influence if way == "influence" else Towards
            objective = partial(kind, beside(log, number, before.items, before.known), weight)
        start = before if way.startswith("warm") else None
        versions.append(trained(log, number, other, objective, start))
    return versions


def recall(queries_QE: Tensor, items_NE: Tensor, held: NDArray[np.bool_], asked: Queries) -> Any:
    """Return recall@20 (Q,) of an index of the items `held`."""
    place = np.flatnonzero(held)
    rows = torch.from_numpy(np.where(held, np.cumsum(held) - 1, -1))
    seen = rows[asked.seen.values]
    owners = asked.seen.owners()[seen >= 0]
    lengths = torch.bincount(owners, minlength=len(asked))
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    exclude = replace(asked.seen, values=seen[seen >= 0], offsets=offsets)
    top = exact_topk(queries_QE, items_NE[torch.from_numpy(place)], K, exclude)[1]
    whole = torch.where(top >= 0, torch.from_numpy(place)[top.clamp(min=0)], -1)
    return np.asarray(ranking_metrics(whole, asked.relevant, (K,))[f"recall_at_{K}"], np.float64)


def meetings(new: Version, old: Version, asked: Queries) -> Iterator[tuple[str, Any]]:
    """Yield the recall (Q,) of all pairs of two versions by their names."""
    both = new.known & old.known
    common = torch.from_numpy(np.flatnonzero(both))
    x, y = new.items[common], old.items[common]
    turn = rotation_onto(x, y).float()
    linear = torch.linalg.lstsq(y.double(), x.double()).solution.T.float()
    yield "new on new", recall(new.queries, new.items, new.known, asked)
    yield "new on new, old items", recall(new.queries, new.items, both, asked)
    yield "old on old", recall(old.queries, old.items, old.known, asked)
    yield "new on old", recall(new.queries, old.items, old.known, asked)
    yield "new on old, rotated", recall(new.queries @ turn, old.items, old.known, asked)
    yield "new on old, linear", recall(new.queries @ linear, old.items, old.known, asked)
    yield "old on new", recall(old.queries, new.items, new.known, asked)
    yield "old on new, rotated", recall(old.queries @ turn.T, new.items, new.known, asked)
    mixed = torch.where(torch.from_numpy(old.known)[:, None], old.items, new.items @ turn)
    yield "new on old and new items, rotated", recall(new.queries @ turn, mixed, new.known, asked)


def measured(bench: Benchmark, name: str, log: Log, ways: list[str], seeds: int) -> dict[str, Any]:
    """Return the figures of all ways."""
    asked = queries_of(log.whole, TEST, log.configs[-1])
    firsts = [trained(log, 0, seed) for seed in range(seeds)]
    found: dict[str, Any] = {}
    for way in ways:
        chains = [chain(log, way, seed, first) for seed, first in enumerate(firsts)]
        own: dict[str, Any] = {"cpu_s": [[v.cpu_s for v in one] for one in chains]}
        for new, old in ((1, 0), (2, 1), (2, 0)):
            each = [dict(meetings(one[new], one[old], asked)) for one in chains]
            mean = {what: np.mean([one[what] for one in each], axis=0) for what in each[0]}
            pure = mean["old on old"]
            own[f"{new} on {old}"] = {
                what: [
                    round(float(x), 5)
                    for x in (
                        values.mean(),
                        *(lambda d: (d.mean, d.low, d.high))(paired_difference(values, pure)),
                    )
                ]
                for what, values in mean.items()
            }
            for what, (value, gain, low, high) in own[f"{new} on {old}"].items():
                cells = f"{value:.4f} ({gain:+.4f} [{low:+.4f}, {high:+.4f}])"
                bench.row(f"{name} {way}: {new} to {old}: {what}", cells)
        bench.row(f"{name} {way}", f"CPU s {own['cpu_s']}")
        found[way] = own
    return {
        "queries": len(asked),
        "items": [one.num_items for one in log.data],
        "seeds": seeds,
        "ways": found,
    }


def main() -> None:
    bench = Benchmark("compatible", __doc__ or "")
    own = {
        "data": "ml1m,sports",
        "seeds": "1" if bench.quick else "2",
        "ways": ",".join(bench.sized(WAYS, WAYS, ("influence", "simplex"))),
    }
    given = dict(override.split("=", 1) for override in bench.overrides)
    own |= {key: given.pop(key) for key in list(given) if key in own}
    rest = tuple(f"{key}={value}" for key, value in given.items())
    if bench.smoke:
        rest = (*SMALL_MODEL, *SMALL_TRAINING, *rest)
    elif bench.quick:
        rest = ("training.epochs=1", *rest)
    torch.set_num_threads(1)
    keep_freed_memory()
    figures = bench.kept() if bench.save else {}
    for name in own["data"].split(","):
        with tempfile.TemporaryDirectory(prefix="compatible-") as folder:
            log = grown(name, Path(folder), (*OF_DATA[name], *rest))
        figures[name] = measured(bench, name, log, own["ways"].split(","), int(own["seeds"]))
        bench.keep(figures)
    bench.finish({**figures, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    sys.exit(main())
