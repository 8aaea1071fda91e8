"""One training for `ssl_curves`: a family, a data set, a share of its rows, and a regulariser.

A data set is read once, as `recsys init` declares it; of its training rows a seeded share keeps
its part and the others have none, so that neither training nor histories see them. Of models of
sessions whole sessions are kept, and queries have all that came before; so are users of two-towers
where asked for.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _correlated_world import World as CorrelatedWorld
from _harness import SMALL_MODEL, SMALL_TRAINING
from _loaned import loaned
from _ranker_runs import trained as trained_ranker
from numpy.typing import NDArray
from torch import Tensor

from recsys.features.dataset.dataset import Dataset, remembering
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import cut_sessions
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.propose.sizes import ranker_sizes
from recsys.features.propose.tables import infer
from recsys.features.propose.yaml_text import flow
from recsys.retrieval.topk import topk_of_scores
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Batch, Task, fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.engine.ranks import World
from recsys.training.evaluation.slices import item_slices
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.rows import rows_of
from recsys.training.families.retrieval.validation import rank_with
from recsys.training.families.session.config import SessionExperiment
from recsys.training.families.session.task import session_task
from recsys.training.families.two_tower.config import TwoTowerExperiment
from recsys.training.families.two_tower.task import two_tower_task

K = 20
NO_PART = 3
"""Of training rows that are not kept."""
STEPS = 10
"""Between two evaluations at least, whatever the log's size: patience counts evaluations."""
EPOCHS = 100
"""At most; patience ends a training."""
QUERIES = {VALIDATION: 3_000, TEST: 10_000}
ROWS = {VALIDATION: 15_000, TEST: 40_000}
"""Of rankers; of either a fixed sample at most, the same for all runs."""
POPULARITY = "popularity"
"""No training: the most popular items of the rows kept, a yardstick."""
_VIEWS: dict[str, Any] = {"kind": "contrastive", "views": "item"}
_TOWERS = {**_VIEWS, "weight": 0.5, "temperature": 0.1}
_RANKERS = {**_VIEWS, "weight": 0.001, "temperature": 0.5}
ATTRIBUTES = {"beauty": ("attributes",), "sports": ("brand", "categories"), "ml1m": ("genres",)}
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "towers": {
        "none": {},
        "random": {**_TOWERS, "masking": "random"},
        "correlated": {**_TOWERS, "masking": "correlated"},
        "dropout": {**_TOWERS, "masking": "none", "dropout": 0.3},
        POPULARITY: {},
    },
    "rankers": {
        "none": {},
        "random": {**_RANKERS, "masking": "random"},
        "correlated": {**_RANKERS, "masking": "correlated"},
    },
    "sessions": {
        "none": {},
        "items": {"masked_items": {"weight": 0.1}},
        "attributes": {"masked_attributes": {"weight": 0.1}},
        "contrast": {"contrastive": {"weight": 0.05}},
    },
}
Arrays = dict[str, NDArray[Any]]
B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Run:
    """What is trained; `share` of the training rows. overrides: keys for all runs."""

    family: str
    data: str
    share: float
    arm: str
    seed: int
    features: int = 20
    """Of an item, in the built-in world."""
    rates: float = 1.0
    """What both learning rates are multiplied by."""
    keep: str = "rows"
    """Of two-towers what is drawn: training rows, or `users` with all their rows."""
    smoke: bool = False
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name for a file."""
        of = f"{self.data}{self.features if self.data == 'world' else ''}"
        name = f"{self.family}-{of}-{self.share * 100:g}-{self.arm}-{self.seed}"
        if self.rates != 1:
            name = f"{name}-rates{self.rates:g}"
        if self.keep != "rows":
            name = f"{name}-{self.keep}"
        if not self.overrides:
            return name
        return f"{name}-{sha256(repr(self.overrides).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Found:
    """What the test part holds after a training: `figures`, and arrays of all queries or rows.

    place: (Q,) of the item that was taken in a list of 20, -1 where it is not; or probability and
    label (N,). tail: whether its item is one of the last third of all training rows.
    """

    figures: dict[str, Any]
    arrays: Arrays

    def save(self, path: Path) -> None:
        """Keep it in a file."""
        arrays: Any = {**self.arrays, "figures": np.array(json.dumps(self.figures))}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Found":
        """Return what is in a file."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return cls(json.loads(str(arrays.pop("figures"))), arrays)


def tables_of(run: Run, folder: Path) -> list[Path]:
    """Return the tables of a data set, written to `folder` where they are made."""
    if run.data == "world":
        small = {"users": 60, "items": 80, "events": 12} if run.smoke else {}
        world = CorrelatedWorld(features=run.features, **small)
        return (world.write_labelled if run.family == "rankers" else world.write)(folder)
    if run.data == "ml1m":
        source = loaned("ml-1m")
        others = [source / "movies.parquet", source / "users.parquet"]
        if run.family == "rankers":
            return [source / "autoint_split.parquet", *others]
        log = pq.read_table(source / "ratings.parquet")
        keep = (np.asarray(log["position"]) >= 0) & (np.asarray(log["rating"]) >= 4)
        log = log.take(pa.array(np.flatnonzero(keep))).select(["user_id", "movie_id", "position"])
        pq.write_table(log, folder / "rows.parquet")
        return [folder / "rows.parquet", *others]
    source = loaned(f"amazon-{run.data}")
    return [source / "interactions.parquet", source / "items.parquet"]


@lru_cache(maxsize=1)
def studied(data: str, family: str, features: int, smoke: bool) -> tuple[str, Dataset]:
    """Return the configuration that `recsys init` writes, and the data."""
    run = Run(family, data, 1.0, "none", 0, features, smoke=smoke)
    with tempfile.TemporaryDirectory(prefix="ssl_curves-") as temporary:
        yaml = infer(tables_of(run, Path(temporary))).yaml
        return yaml, load_data(config_of(run, yaml))  # type: ignore[arg-type]


def config_of(run: Run, yaml: str, rows: int = 0) -> ExperimentConfig:
    """Return the experiment; `rows` of a ranker's log decide its sizes."""
    settings = ARMS[run.family][run.arm]
    ours = [f"training.seed={run.seed}", f"training.epochs={EPOCHS}"]
    if run.family == "sessions":
        if "masked_attributes" in settings:
            named = {**settings["masked_attributes"], "features": ATTRIBUTES[run.data]}
            settings = {"masked_attributes": named}
        ours += [
            "model={kind: session}",
            "training.loss=full_softmax",
            "training.batch_size=256",
            "training.average_epochs=1",
            f"training.session.self_supervision={flow(settings)}",
        ]
    else:
        ours.append(f"training.self_supervision={flow(settings)}")
    if run.family == "rankers":
        sizes = ranker_sizes(rows, 0)
        ours += [
            f"model.hidden={list(sizes.hidden)}",
            f"model.dropout={sizes.dropout}",
            f"training.batch_size={sizes.batch_size}",
            f"embedding.weight_decay={sizes.weight_decay}",
        ]
    else:
        ours += ["split={kind: leave_one_out}", f"evaluation.ks=[10,{K}]"]
    if run.smoke:
        ours += [*SMALL_MODEL[1:], *SMALL_TRAINING]
    with tempfile.TemporaryDirectory(prefix="ssl_curves-") as temporary:
        path = Path(temporary) / "recsys.yaml"
        path.write_text(yaml)
        config = load_config(path, (*ours, *run.overrides))
        if run.rates == 1:
            return config
        for section in ("training", "embedding"):
            rate = getattr(config, section).learning_rate * run.rates
            ours.append(f"{section}.learning_rate={rate}")
        return load_config(path, (*ours, *run.overrides))


def thinned(data: Dataset, share: float, seed: int, *, by_user: bool) -> Dataset:
    """Return the data with a seeded share of its training rows, or of its users' rows.

    A smaller share is a part of a larger one.
    """
    rng = np.random.default_rng([seed, 1])
    user = data.tables.events.user_row
    luck = rng.random(data.num_users)[user] if by_user else rng.random(len(user))
    gone = (data.part == TRAIN) & (luck >= share)
    return remembering(replace(data, part=np.where(gone, NO_PART, data.part).astype(np.int8)))


def sampled(data: Dataset) -> Dataset:
    """Return the data with a fixed sample of its validation and test rows."""
    part = data.part.copy()
    for one, most in ROWS.items():
        rows = np.random.default_rng(one).permutation(np.flatnonzero(part == one))
        part[rows[most:]] = NO_PART
    return replace(data, part=part)


def several_passes(task: Task[B]) -> Task[B]:
    """Return the task with so many passes over the rows an epoch that it has `STEPS` steps."""
    passes = math.ceil(STEPS / task.num_steps)

    def batches(epoch: int, first: int) -> Iterator[B]:
        for number in range(first // task.num_steps, passes):
            begin = first % task.num_steps if number == first // task.num_steps else 0
            yield from task.batches(epoch * passes + number, begin)

    return replace(task, num_steps=task.num_steps * passes, batches=batches)


def measured(run: Run) -> Found:
    """Train once, on one thread; return what the test part holds."""
    torch.set_num_threads(1)
    keep_freed_memory()
    yaml, data = studied(run.data, run.family, run.features, run.smoke)
    return {"rankers": _of_ranker, "towers": _of_towers, "sessions": _of_sessions}[run.family](
        run, yaml, data
    )


def _of_ranker(run: Run, yaml: str, data: Dataset) -> Found:
    less = thinned(sampled(data), run.share, run.seed, by_user=False)
    whole_log = len(data.part) * (less.part == TRAIN).sum() / (data.part == TRAIN).sum()
    config = config_of(run, yaml, int(whole_log))
    assert isinstance(config, RankerExperiment)
    ran = trained_ranker(config, rows_of(config, less))
    asked = less.tables.events.item_row[less.events_of((TEST,))]
    figures = {
        "validation": ran.validation_auc,
        "best_epoch": ran.best_epoch,
        "cpu_s": ran.cpu_s,
        "training_rows": int((less.part == TRAIN).sum()),
    }
    return Found(
        {**asdict(run), **figures},
        {
            "probability": ran.found.probability.astype(np.float32),
            "label": ran.found.label.astype(np.int8),
            "tail": _in_tail(data, asked),
        },
    )


def _of_towers(run: Run, yaml: str, data: Dataset) -> Found:
    config = config_of(run, yaml)
    assert isinstance(config, TwoTowerExperiment)
    by_user = run.keep == "users"
    less = thinned(data, run.share, run.seed, by_user=by_user)
    build = partial(
        build_queries,
        data if by_user else less,
        history_length=config.model.history_length,
        filter_seen=True,
        seed=0,
    )
    validation, test = (build(part, limit=limit) for part, limit in QUERIES.items())
    if run.arm == POPULARITY:
        return _of_popularity(run, (data, less), test)
    task = several_passes(two_tower_task(config, less, validation, World()))
    return _of_retrieval(run, config, (data, less), test, task)


def _of_sessions(run: Run, yaml: str, data: Dataset) -> Found:
    config = config_of(run, yaml)
    assert isinstance(config, SessionExperiment)
    less = thinned(data, run.share, run.seed, by_user=True)
    sessions = cut_sessions(data, config.sessions)
    build = partial(
        build_session_queries,
        data,
        sessions,
        per="user",
        history_length=config.model.history_length,
        filter_seen=True,
        seed=0,
    )
    validation, test = (build(part, limit=limit) for part, limit in QUERIES.items())
    task = several_passes(session_task(config, less, sessions, validation, World()))
    return _of_retrieval(run, config, (data, less), test, task)


def _of_retrieval(
    run: Run, config: Any, data: tuple[Dataset, Dataset], test: Queries, task: Task[Any]
) -> Found:
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="ssl_curves-") as folder:
        state = fit(task, config.training, Checkpoints(Path(folder)))
    trained = time.process_time() - started
    model: Any = task.trained.model
    top = rank_with(model, data[1], test, K, filter_seen=True)
    figures = {
        "validation": state.best_metric,
        "best_epoch": (state.best_step or 0) // task.num_steps,
        "epochs": state.epoch,
        "steps_an_epoch": task.num_steps,
        "training_rows": int((data[1].part == TRAIN).sum()),
        "cpu_s": round(trained, 1),
        "test_cpu_s": round(time.process_time() - started - trained, 1),
    }
    return Found({**asdict(run), **figures}, _places(top, test, data[0]))


def _of_popularity(run: Run, data: tuple[Dataset, Dataset], test: Queries) -> Found:
    scores = torch.from_numpy(data[1].train_counts.astype(np.float32))
    found = [
        topk_of_scores(scores.repeat(len(rows), 1), K, test.seen.take(rows))[1]
        for rows in torch.arange(len(test)).split(500)
    ]
    figures = {"validation": 0.0, "best_epoch": 0, "cpu_s": 0.0}
    rows = int((data[1].part == TRAIN).sum())
    arrays = _places(torch.cat(found), test, data[0])
    return Found({**asdict(run), **figures, "training_rows": rows}, arrays)


def _places(top: Tensor, test: Queries, whole: Dataset) -> Arrays:
    asked = test.relevant.values.numpy()
    hit = top.numpy() == asked[:, None]
    place = np.where(hit.any(1), hit.argmax(1), -1).astype(np.int8)
    return {"place": place, "tail": _in_tail(whole, asked)}


def _in_tail(whole: Dataset, asked: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    return item_slices(whole.train_counts)["items: tail"][asked]
