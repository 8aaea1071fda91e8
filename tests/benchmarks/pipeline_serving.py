"""What the stages of a pipeline cost a request, and the whole beside their sum.

MovieLens-1M as `init` reads it; sources linear, chain and neighbours with 200 candidates each,
joined by what was learnt, ordered by trees, under a filter and three rules. Each stage is called
by itself on what the stage before gave; then the whole, in turn, one thread. `whole_vs_stages` is
the ratio of the medians of CPU time.

    --set data=wide    the built-in world with 100,000 items: a two-tower and two plain models, 500
                       candidates to rank; add=true keeps the figures of the other data
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _harness import Benchmark
from pipeline import OF_SEQUENCES, made_small, of_films, of_world

from recsys.features.bundle.searching import items_of
from recsys.features.dataset.split import TEST
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.searching import RULED, PipelineSearch
from recsys.training.families.family import Given
from recsys.training.families.load import config_of
from recsys.training.families.pipeline import learning
from recsys.training.families.pipeline.asking import Asking
from recsys.training.families.pipeline.job import open_pipeline
from recsys.training.families.pipeline.opening import search_in
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train

FILMS: dict[str, Any] = {
    "filter": "year > 1950",
    "rules": [
        {"boost": {"where": "year > 1995", "by": 1.1}},
        {"at_most": 10, "of": "genres"},
        {"pin": {"position": 5, "where": "year = 1994"}},
    ],
}
WORLD: dict[str, Any] = {
    "filter": "price < 100",
    "rules": [
        {"boost": {"where": "price < 50", "by": 1.1}},
        {"at_most": 5, "of": "brand"},
        {"pin": {"position": 5, "where": "price < 30"}},
    ],
}


def of_many_items(folder: Path) -> dict[str, Any]:
    """Return the pipeline on a world with many items; `ease` would need a matrix of them."""
    raw = of_world(folder, small=False, users=4000, items=100_000, events=200_000)
    sources = [one for one in raw["sources"] if one["model"]["kind"] != "ease"]
    sources[0]["training"] |= {"epochs": 2}
    return raw | {"sources": [{**one, "take": 250} for one in sources]}


def pipeline_in(folder: Path, small: bool, wide: bool) -> tuple[Path, Any]:
    """Train the pipeline; return its bundle and its configuration."""
    rank: Any = "gbdt"
    if wide:
        raw, own, rank = of_many_items(folder), WORLD, {"kind": "gbdt", "candidates": 500}
    elif small:
        raw, own = made_small(of_world(folder, small=True)), WORLD
        rank = {"kind": "gbdt", "trees": 5, "least_rows": 5}
    else:
        raw, own = of_films(), FILMS
        raw["sources"] = [raw["sources"][0], OF_SEQUENCES[0], OF_SEQUENCES[2]]
    sources = raw["sources"]
    keys = {name: one for name, one in raw.items() if name != "sources"} | {
        "model": {"kind": "pipeline", "sources": sources, "rank": rank, **own},
        "evaluation": {"ks": [10, 20], "baselines": []},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    config = config_of(keys, source="pipeline_serving", folder=folder)
    result = train(config)
    assert result is not None
    return result.bundle, config


def cpu(call: Callable[[], Any], times: int) -> float:
    """Return the median of CPU seconds."""
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found)


def measured(search: PipelineSearch, asking: Asking, users: Any, times: int) -> dict[str, float]:
    """Return CPU seconds of every stage, of their sum and of the whole."""
    table, requests = asking.one_table(users, search)
    exclude = asking.excluded(requests)
    stages: dict[str, Callable[[], Any]] = {}
    lists = [search.named(number, requests, exclude) for number in range(len(search.names))]
    for number, name in enumerate(search.names):
        stages[f"source {name}"] = lambda number=number: search.named(number, requests, exclude)
    pairs = [(one.scores, one.rows) for one in lists]
    joined, size = search.joined, search.joined.num_items
    stages["candidates"] = lambda: Candidates.of(pairs, size, search.takes)
    candidates = stages["candidates"]()
    history, most = items_of(requests.history), max(RULED, 20)
    stages["fusion"] = lambda: joined.fused(candidates, most)
    stages["ranking"] = lambda: joined.ranked(candidates, history, most)
    ranked = joined.ranked(candidates, history, most)
    assert search.rules is not None
    rules = search.rules
    eligible = exclude.masks()  # type: ignore[union-attr]
    stages["rules"] = lambda: rules.apply(
        ranked.rows.numpy(), ranked.scores.numpy(), 20, eligible, {}
    )
    found = {name: cpu(call, times) for name, call in stages.items()}
    counted = dict(found)
    if joined.ranker is not None:
        del counted["fusion"]  # ranking fuses first
    else:
        del counted["ranking"]
    found["sum"] = sum(counted.values())
    found["whole"] = cpu(lambda: search(requests, 20, exclude=exclude), times)
    found["encoding"] = cpu(lambda: search.reading(requests, table, _unnamed()), 1)
    return found


def _unnamed() -> Any:
    from recsys.features.requests.origin import RequestOrigin

    return RequestOrigin()


def main() -> None:
    benchmark = Benchmark("pipeline_serving", __doc__ or "")
    with tempfile.TemporaryDirectory(prefix="pipeline-serving-") as place:
        folder = Path(place)
        given = dict(one.split("=", 1) for one in benchmark.overrides)
        wide = given.get("data") == "wide"
        if wide:  # what ranking costs is measured also where it does not pay
            learning._kept = lambda *_: learning._RANKED
        bundle, config = pipeline_in(folder, benchmark.smoke, wide)
        data = open_pipeline(config, Given()).data
        search = search_in(open_model(bundle), data)
        asking = Asking.before(config, data, TEST)
        count = benchmark.sized(2000, 1000, 50)
        users = np.flatnonzero(np.bincount(data.tables.events.user_row) > 0)[:count]
        seconds = measured(search, asking, users, benchmark.sized(5, 3, 1))
        per_s = {name: round(len(users) / max(one, 1e-9)) for name, one in seconds.items()}
        for name, one in seconds.items():
            benchmark.row(name, f"{one * 1e6 / len(users):8.1f} us a request, {per_s[name]:,} a s")
        ratio = seconds["whole"] / seconds["sum"]
        benchmark.row("whole / sum of the stages", f"{ratio:.2f}")
        found = {"whole_vs_stages": round(ratio, 3), "requests_per_cpu_s": per_s}
        kept = benchmark.kept() if given.get("add") else {}
        benchmark.finish(kept | ({"wide": found} if wide else found))


if __name__ == "__main__":
    sys.exit(main())
