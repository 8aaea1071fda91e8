"""Vectors of trained models: items, what users ask before validation and before test, answers.

- `ml1m`: MovieLens-1M (ratings of at least 4), the two-tower of `interests` with one interest:
  width 64 on the unit sphere;
- `sports`: Amazon Sports, the session model of `session_sports` without its memory, of fewer
  epochs: width 65, where the last number of an item is its bias.

Leave one out. Queries are of a user's events before the validation row, and before the test row;
`others` splits users in two halves, so that what is learnt of one half's queries is measured on
the other's. `--set vectors=FOLDER` keeps the vectors there, or reads those that are there.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark
from _loaned import loaned
from _session_runs import config_of as session_config_of
from interests import config_of as two_tower_config_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.layers.geometry import Geometry
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.families.session.reading import SessionData
from recsys.training.families.two_tower.reading import TwoTowerData
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train

NAMES = ("ml1m", "sports")
GEOMETRIES: dict[str, Geometry] = {"ml1m": "sphere", "sports": "dot"}
LIGHT = {"ml1m": ("training.epochs=20",), "sports": ("training.epochs=6", "model.memory=none")}
FEW = (
    "evaluation.baselines=[popularity]",
    "evaluation.max_queries=1000",
    "evaluation.bootstrap_samples=10",
    "tracking.enabled=false",
)


@dataclass(frozen=True)
class Part:
    """What Q users ask before a row that is held out: vectors (Q, E), seen items, the row's."""

    users: Tensor
    vectors: Tensor
    seen: Jagged
    relevant: Jagged

    def half(self, odd: bool) -> "Part":
        """Return the queries of every other user."""
        rows = ((self.users % 2 == 1) == odd).nonzero().flatten()
        return Part(
            self.users[rows], self.vectors[rows], self.seen.take(rows), self.relevant.take(rows)
        )


@dataclass(frozen=True)
class Vectors:
    """Of one model: items (N, E), where they live, and queries of both parts."""

    items: Tensor
    geometry: Geometry
    validation: Part
    test: Part


def trained_vectors(benchmark: Benchmark, name: str) -> Vectors:
    """Train the model `name`, or read its vectors where they are kept."""
    given = dict(one.split("=", 1) for one in benchmark.overrides)
    kept = Path(given["vectors"]) / f"{name}.safetensors" if "vectors" in given else None
    if kept is None or not kept.is_file():
        with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
            found = _trained(benchmark, name, Path(folder))
        if kept is None:
            return _vectors(found, name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, kept)
    return _vectors(load_file(kept), name)


def _trained(benchmark: Benchmark, name: str, folder: Path) -> dict[str, Tensor]:
    small = (*SMALL_MODEL, *SMALL_TRAINING) if benchmark.smoke else ()
    config = _CONFIGS[name](folder, (*LIGHT[name], *FEW, *small))
    result = train(config, listeners=())
    assert result is not None
    opened = open_model(result.bundle)
    data, model = opened.data(), opened.retrieval_model()
    items = catalogue_vectors(model, data.items)
    found = {"items": items}
    reading = _READINGS[name](opened.config, data)
    for label, part in (("validation", VALIDATION), ("test", TEST)):
        queries: Queries = reading.queries(part, data.num_users)
        vectors = query_vectors(model, queries.block, items, queries.history)
        found[f"{label}.vectors"] = model.without_gain(vectors)[0].contiguous()
        found[f"{label}.users"] = torch.from_numpy(queries.users)
        for what, rows in (("seen", queries.seen), ("relevant", queries.relevant)):
            found |= {f"{label}.{what}": rows.values, f"{label}.{what}.offsets": rows.offsets}
    return found


def _ml1m(folder: Path, overrides: tuple[str, ...]) -> RetrievalExperiment:
    config = two_tower_config_of(folder, overrides)
    return config.model_copy(
        update={"output": str(folder / "runs"), "cache": str(folder / "cache")}
    )


def _sports(folder: Path, overrides: tuple[str, ...]) -> RetrievalExperiment:
    settings = Path(__file__).with_name("session_sports.yaml")
    return session_config_of(settings, loaned("amazon-sports"), folder, overrides)


_CONFIGS: dict[str, Callable[[Path, tuple[str, ...]], RetrievalExperiment]] = {
    "ml1m": _ml1m,
    "sports": _sports,
}
_READINGS = {"ml1m": TwoTowerData, "sports": SessionData.of}


def _vectors(found: dict[str, Tensor], name: str) -> Vectors:
    def part(label: str) -> Part:
        seen, relevant = (
            Jagged(found[f"{label}.{what}"], found[f"{label}.{what}.offsets"])
            for what in ("seen", "relevant")
        )
        return Part(found[f"{label}.users"], found[f"{label}.vectors"], seen, relevant)

    return Vectors(found["items"], GEOMETRIES[name], part("validation"), part("test"))
