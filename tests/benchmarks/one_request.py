"""What one request costs: its query vector by the engine and by the exported graph, and its list.

The built-in world, a two-tower and a model of sessions trained for an epoch, one thread, a request
of the model's probe at a time. `engine` makes the vector of a table of one row, `graph` the same
of a dictionary through `query_tower.onnx` and its `queries.py`, `list` is the list of `k` items.
Figures are CPU milliseconds, medians.

    --set data=wide    the list alone, of a two-tower with 100,000 items and an HNSW index, and what
                       finding the rows of a history takes of it, with the catalogue's hashes kept
                       and as Arrow does it; add=true keeps the figures of the other data
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow as pa
import pyarrow.compute as pc
import torch
from _harness import Benchmark, alternated

from recsys.core.strict_yaml import read_yaml
from recsys.features.bundle.files import read_request_probe
from recsys.features.bundle.request_probe import without_answers
from recsys.features.propose.tables import infer
from recsys.features.requests.item_lookup import rows_of_items
from recsys.features.world.world import RetailWorld
from recsys.serving.export.queries import QueryTower
from recsys.serving.export.query_tower import export_query_tower
from recsys.serving.export.query_vectors import vectors_and_gains
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.load import config_of
from recsys.training.jobs.train import train

K = 10


KINDS = ("two_tower", "session")


def trained(folder: Path, kind: str, sizes: dict[str, int], changes: dict[str, Any]) -> Path:
    """Return the bundle of a model of the built-in world, trained for an epoch."""
    world = folder / "-".join(map(str, sizes.values()))
    found = RetailWorld.create(0, **sizes).write(world)
    raw = read_yaml(infer([found.interactions, found.items, found.users]).yaml, source="world")
    keys = {name: raw[name] for name in ("data", "schema", "split") if name in raw}
    keys |= {
        "model": {"kind": kind, **changes},
        "training": {"epochs": 1, "seed": 0},
        "evaluation": {"baselines": [], "bootstrap_samples": 10},
        "tracking": {"enabled": False},
        "output": str(folder / f"runs-{kind}-{sizes['items']}"),
    }
    result = train(config_of(keys, source="one_request", folder=folder))
    assert result is not None
    return result.bundle


def asked_of(scorer: Scorer) -> pa.Table:
    """Return the first request of the probe whose history is not empty."""
    probe = without_answers(read_request_probe(scorer.bundle))
    lengths = pc.list_value_length(probe.column("history"))
    return probe.filter(pc.greater(lengths, 0)).slice(0, 1)


def milliseconds(calls: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Return the medians of CPU time."""
    return {name: round(1e3 * one.cpu, 3) for name, one in alternated(calls, times).items()}


def of_kind(folder: Path, kind: str, bench: Benchmark) -> dict[str, float]:
    """Return what a request costs a model of the world: its vector in two ways, and its list."""
    sizes = bench.sized({}, {}, {"users": 150, "items": 80, "events": 3000})
    sizes = {"users": 2000, "items": 1000, "events": 40_000} | sizes
    bundle = trained(folder, kind, sizes, bench.sized({}, {}, {"dim": 8}))
    export_query_tower(bundle, folder / kind)
    scorer, tower = Scorer.open(bundle), QueryTower(folder / kind)
    table = asked_of(scorer)
    rows = table.to_pylist()
    calls: dict[str, Callable[[], object]] = {
        "engine": lambda: vectors_and_gains(scorer, scorer.encode(table)),
        "graph": lambda: tower(rows),
        "list": lambda: scorer.score(table, K),
    }
    return milliseconds(calls, bench.sized(200, 50, 1))


def of_many_items(folder: Path, bench: Benchmark) -> dict[str, float]:
    """Return what the list of a request costs among many items, and its history's rows of it."""
    sizes = {"users": 1000, "items": 100_000, "events": 20_000}
    sizes = bench.sized(sizes, sizes, {"users": 150, "items": 80, "events": 3000})
    scorer = Scorer.open(trained(folder, "two_tower", sizes, bench.sized({}, {}, {"dim": 8})))
    table = asked_of(scorer)
    history = table.column("history").combine_chunks().flatten().cast(scorer.item_ids.type)
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: scorer.score(table, K),
        "rows": lambda: rows_of_items(history, scorer.item_ids),
        "rows_by_arrow": lambda: pc.index_in(history, scorer.item_ids),
    }
    return milliseconds(calls, bench.sized(200, 50, 1))


def main() -> None:
    bench = Benchmark("one_request", __doc__ or "")
    torch.set_num_threads(1)
    wide, add = "data=wide" in bench.overrides, "add=true" in bench.overrides
    figures: dict[str, Any] = bench.kept() if add else {}
    with tempfile.TemporaryDirectory() as name:
        if wide:
            figures["wide"] = of_many_items(Path(name), bench)
        else:
            figures |= {kind: of_kind(Path(name), kind, bench) for kind in KINDS}
    for label, one in figures.items():
        if isinstance(one, dict):
            bench.row(label, ", ".join(f"{what} {ms:.3f} ms" for what, ms in one.items()))
    bench.finish({**figures, "seed": 0})


if __name__ == "__main__":
    main()
