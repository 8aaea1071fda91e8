"""One process and several, the same losses, metrics and checkpoints; each example seen once.

This file is also the program of the ranks: 2 and 4 of them run `main` below beside this process,
all on the same tables. Dropout is 0 throughout, for ranks draw dropout of their own.
"""

import json
import os
import shutil
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.core.events import Event, StepDone
from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.dataset import Dataset, prepare
from recsys.features.dataset.split import TRAIN
from recsys.features.world.world import RetailWorld
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.parts import plain_table
from recsys.training.engine.ranks import World, join, leave
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.registry import family_of

SIZES = (1, 2, 4)
LONG = {1: None, 2: None, 4: 25}
"""Steps of the long run, by ranks; None: all of them."""
OPTIMIZERS = ("row_wise_adagrad", "adagrad", "sgd", "adam")
"""On TorchRec, but Adam, which has decay too."""
SAVED_AT, KILLED_AT, READ_TO = 5, 7, 14
OPENED = {1: (1, 2), 2: (1, 4), 4: (2,)}
"""Whose checkpoints are opened, by ranks."""
RANKER = """
data: {interactions: log.parquet}
schema:
  interactions:
    {user: user, item: item, label: {column: click}, time: {column: time, unit: s}, weight: weight}
  features:
  - {name: user, table: users, kind: categorical, column: user}
  - {name: item, table: items, kind: categorical, column: item, multiplicity: 2}
  - {name: place, table: interactions, kind: categorical}
  - {name: tags, table: interactions, kind: multi_categorical, weights: doubts, pooling: sqrtn}
  - {name: words, table: interactions, kind: multi_categorical, multiplicity: 2}
  - {name: price, table: interactions, kind: numeric}
  - {name: taken, kind: history, of: item, last: 3, pooling: attention}
  - {name: user_words, kind: cross, of: [user, words], pooling: sqrtn}
  - {name: clicks, kind: count, of: item}
model: {kind: dcn, hidden: [8, 4], dropout: 0}
embedding: {num_rows: 102, dim: 4, groups: {apart: {num_rows: 13, features: [place, tags]}}}
training: {epochs: 9, patience: 99, batch_size: 29, precision: float32, device: cpu}
cache: cache
"""  # 115 rows of table and 29 rows of batch on 2 and 4 ranks: nothing can be divided evenly
SEVERAL_OUTCOMES = (
    "model={kind: mmoe, experts: 2, hidden: [8], towers: [4], dropout: 0}",
    "schema.interactions.outcomes=[{name: purchase, column: bought, weight: 0.5}]",
)
"""The second one is known of clicked rows alone, so of few rows of a batch on each rank."""
TWO_TOWER = (
    "model.dropout=0",
    "model.dim=8",
    "model.temperature=0.5",  # 0.07 would multiply the rounding of a cosine by 14
    "model.hidden=[8]",
    "model.history_length=5",
    "embedding.num_rows=203",
    "embedding.dim=4",
    "training.batch_size=43",  # 560 pairs: the last batch has one
    "training.uniform_negatives=9",
    "training.logq_correction=streaming",
    "training.cached_negatives=60",
    "training.epochs=8",
    "training.patience=99",
    "training.precision=float32",
    "training.device=cpu",
)


def write_tables(folder: Path) -> None:
    """Write what both kinds of model train on, with their configurations."""
    world = RetailWorld.create(seed=1, users=60, items=40, events=700)
    files = world.write(folder)
    (folder / "recsys.yaml").write_text(world.config_text(files))
    write_log(folder)


def write_log(folder: Path) -> None:
    """Write 400 labelled rows, 320 of them for training: 11 batches of 29 and one of 1."""
    rng = np.random.default_rng(5)
    item = rng.integers(0, 30, 400)
    tags = [rng.integers(0, 9, n).tolist() for n in rng.integers(0, 4, 400)]
    columns: dict[str, Any] = {
        "user": rng.integers(0, 50, 400),
        "item": item,
        "click": (rng.random(400) < 0.2 + 0.5 * (item % 2)).astype(int),
        "time": 1_700_000_000 + np.arange(400),
        "weight": rng.choice([0.5, 1.0, 2.0], 400),
        "place": rng.choice(["web", "shop"], 400),
        "tags": tags,
        "doubts": [rng.random(len(values)).tolist() for values in tags],
        "words": [rng.integers(0, 40, n).tolist() for n in rng.integers(0, 3, 400)],
        "price": rng.normal(size=400),
    }
    bought = rng.integers(0, 2, 400)
    columns["bought"] = pa.array(bought, mask=columns["click"] == 0)
    pq.write_table(pa.table(columns), folder / "log.parquet")
    (folder / "ranker.yaml").write_text(RANKER)


def configs_in(folder: Path) -> dict[str, ExperimentConfig]:
    cache = f"cache={folder / 'cache'}"
    return {
        "dcn": load_config(folder / "ranker.yaml", (cache,)),
        "mmoe": load_config(folder / "ranker.yaml", (*SEVERAL_OUTCOMES, cache)),
        "two_tower": load_config(folder / "recsys.yaml", (*TWO_TOWER, cache)),
    }


class Watch:
    """Notes the loss of every step, and stops as a crash would, without a checkpoint."""

    def __init__(self, until: int | None) -> None:
        self.until, self.losses = until, []  # type: ignore[var-annotated]

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone):
            return
        self.losses.append(event.loss)
        if event.global_step == self.until:
            raise KeyboardInterrupt


def task_of(config: ExperimentConfig, world: World) -> Task[Any]:
    return family_of(config).open(config, Given(world)).task()


def trained(
    config: ExperimentConfig, world: World, folder: Path, until: int | None = None
) -> dict[str, Any]:
    """Train, and return every loss, what validation said, and the weights at the end."""
    task, watch = task_of(config, world), Watch(until)
    history: list[dict[str, float]] = []
    try:
        history = fit(task, config.training, Checkpoints(folder, world), (watch,), world).history
    except KeyboardInterrupt:
        assert until is not None
    points = [{n: v for n, v in p.items() if n.startswith("validation/")} for p in history]
    model: Any = task.trained.model
    dense = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    whole = plain_table(config, model.embedding.table, world)
    return {
        "losses": watch.losses,
        "validation": [point for point in points if point],
        "dense": dense.tolist(),
        "table": [] if whole is None else whole.weight.flatten().tolist(),
    }


def with_optimizer(config: ExperimentConfig, optimizer: str) -> ExperimentConfig:
    rate = {"sgd": 1.0, "adam": 0.01}.get(optimizer, 0.05)
    decay = 0.03 if optimizer == "adam" else 0.0
    settings = {"optimizer": optimizer, "learning_rate": rate, "weight_decay": decay}
    table = config.embedding.model_copy(update=settings)
    training = config.training.model_copy(update={"checkpoint_every": SAVED_AT})
    return config.model_copy(update={"embedding": table, "training": training})


def run(folder: Path, world: World) -> dict[str, Any]:
    """Do all that one of `SIZES` does; every rank returns the same but for "table"."""
    found: dict[str, Any] = {}
    for kind, config in configs_in(folder).items():
        checkpoints = folder / f"{kind}-{world.size}"
        found[kind] = trained(config, world, checkpoints, LONG[world.size])
    base = configs_in(folder)["dcn"]
    for optimizer in OPTIMIZERS:
        config = with_optimizer(base, optimizer)
        trained(config, world, folder / f"{optimizer}-{world.size}", KILLED_AT)
    if world.is_first:
        (folder / f"written-{world.size}").touch()
    deadline = time.monotonic() + 300
    while not all((folder / f"written-{size}").exists() for size in SIZES):
        assert time.monotonic() < deadline, "other ranks wrote nothing"
        time.sleep(0.1)
    for optimizer in OPTIMIZERS:
        config = with_optimizer(base, optimizer)
        for size in OPENED[world.size]:
            own = folder / f"{optimizer}-{size}-on-{world.size}"
            if world.is_first:
                shutil.copytree(folder / f"{optimizer}-{size}", own)
            world.wait()
            found[own.name] = trained(config, world, own, READ_TO)
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    world = join("cpu")
    found = run(folder, world)
    (folder / f"found-{world.size}-{world.rank}.json").write_text(json.dumps(found))
    leave(world)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, start_ranks: Any) -> dict[int, Any]:
    """What 1, 2 and 4 ranks found, by their number: of each rank."""
    folder = tmp_path_factory.mktemp("together")
    write_tables(folder)
    ranks = [rank for size in SIZES[1:] for rank in start_ranks(__file__, size, folder)]
    torch.set_num_threads(1)
    alone = [json.loads(json.dumps(run(folder, World())))]
    for rank in ranks:
        output, _ = rank.communicate(timeout=400)
        assert rank.returncode == 0, output
    several = {
        size: [json.loads((folder / f"found-{size}-{r}.json").read_text()) for r in range(size)]
        for size in SIZES[1:]
    }
    return {1: alone, **several}


def apart(found: dict[int, Any], what: str, kind: str, size: int) -> float:
    """Return how far `size` ranks are from one process at most."""
    one, several = (np.array(found[n][0][kind][what]) for n in (1, size))
    assert len(several)
    return float(np.abs(one[: len(several)] - several).max())


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("kind", ["dcn", "mmoe", "two_tower"])
def test_losses_are_those_of_one_process(found: dict[int, Any], kind: str, size: int) -> None:
    losses = found[1][0][kind]["losses"]
    assert len(losses) > 100
    assert np.mean(losses[-12:]) < np.mean(losses[:12])  # it learns, so every update counts
    together = found[size][0][kind]["losses"]
    assert together == pytest.approx(losses[: len(together)], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", ["dcn", "mmoe", "two_tower"])
def test_weights_and_validation_are_those_of_one_process(found: dict[int, Any], kind: str) -> None:
    assert apart(found, "table", kind, 2) < 1e-5
    assert apart(found, "dense", kind, 2) < 1e-5
    one, two = (found[size][0][kind]["validation"] for size in (1, 2))
    assert len(one) == len(two) >= 8
    for before, after in zip(one, two, strict=True):
        assert before == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize("size", SIZES[1:])
def test_all_ranks_say_the_same(found: dict[int, Any], size: int) -> None:
    first, *others = found[size]
    for other in others:
        for name in first:
            for what in ("losses", "validation", "dense"):
                assert first[name][what] == other[name][what]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("reads", "wrote"), [(r, w) for r in SIZES for w in OPENED[r]])
def test_a_checkpoint_opens_on_any_number_of_ranks(
    found: dict[int, Any], optimizer: str, wrote: int, reads: int
) -> None:
    losses = found[reads][0][f"{optimizer}-{wrote}-on-{reads}"]["losses"]
    expected = found[1][0][f"{optimizer}-1-on-1"]["losses"]
    assert len(losses) == READ_TO - SAVED_AT
    assert losses == pytest.approx(expected, abs=1e-6)
    assert len(set(losses)) == len(losses)


@settings(max_examples=20)
@example(batch_size=29, size=4, epoch=0)
@example(batch_size=43, size=4, epoch=1)
@given(batch_size=st.integers(20, 90), size=st.integers(1, 4), epoch=st.integers(0, 3))
def test_an_epoch_of_rows_and_of_pairs_sees_each_example_once(
    logs: "Logs", batch_size: int, size: int, epoch: int
) -> None:
    config = LoaderConfig(
        batch_size=batch_size,
        uniform_negatives=5,
        history_length=3,
        id_dropout=0.1,
        context_dropout=0.1,
        seed=1,
    )
    loaders: tuple[Any, ...] = (
        RankingLoader(logs.rows, batch_size=batch_size, seed=1, id_dropout=0.1),
        PairLoader(logs.pairs, config),
    )
    for loader in loaders:
        shares = [list(loader.epoch(epoch, rank=rank, world=size)) for rank in range(size)]
        assert {len(share) for share in shares} == {loader.num_steps}
        seen = torch.cat([batch.examples for share in shares for batch in share])
        assert sorted(seen.tolist()) == loader.data.events_of((TRAIN,)).tolist()
        for step, whole in enumerate(loader.epoch(epoch)):
            parts = [share[step].examples.tolist() for share in shares]
            assert sorted(chain(*parts)) == sorted(whole.examples.tolist())
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


class Logs:
    """Labelled rows, and the log of a two-tower."""

    def __init__(self, rows: Dataset, pairs: Dataset) -> None:
        self.rows, self.pairs = rows, pairs


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    folder = tmp_path_factory.mktemp("logs")
    write_tables(folder)
    configs = configs_in(folder)
    rows, pairs = (
        prepare(config.schema_, config.data, config.policies, config.split)
        for config in (configs["dcn"], configs["two_tower"])
    )
    return Logs(rows, pairs)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
