"""What it costs to show new items: places of a pipeline's lists against what else they find.

The built-in world, a later stretch of time; two-tower, `ease` and, for exploration, `new_items`,
joined by what was learnt. One pipeline is trained; then lists of 20 have so many places reserved
for new items (`{reserve: N, of: new_items}`), or the source names more of them, and they are
joined by the learnt regression or by reciprocal ranks. `shown`: the share of places that new items
have; `known`, `new`: recall@20 of the items of test users that are not new, and that are. `--set
picture=PATH` draws the curve; `--set training.epochs=3`: keys of the two-tower.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Benchmark
from pipeline import made_small, of_world

from recsys.core.distinct import is_among
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.pipeline.fusing import ByRank
from recsys.features.pipeline.rules import Rules
from recsys.features.pipeline.searching import PipelineSearch
from recsys.pipeline.rules import Reserve
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.families.family import Given
from recsys.training.families.load import config_of
from recsys.training.families.overrides import override_key
from recsys.training.families.pipeline.all_rows import trained_on_all
from recsys.training.families.pipeline.asking import Asking, StageRanker, whole
from recsys.training.families.pipeline.job import open_pipeline, queries_of
from recsys.training.families.pipeline.opening import search_in
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train

K, RESERVED, TAKES = 20, (0, 1, 2, 3, 5, 8), (5, 20, 50, 100)
NEW = "new_items"
Figures = dict[str, dict[str, float]]


def keys_in(folder: Path, benchmark: Benchmark, overrides: list[str]) -> dict[str, Any]:
    """Return the configuration of the pipeline."""
    raw = of_world(folder, benchmark.smoke)
    towers, linear = raw["sources"][:2]
    for one in overrides:
        override_key(towers, one)
    exploring = {"new_items": {"days": 14}, "take": max(TAKES)}
    raw = raw | {"sources": [towers, linear]}
    if benchmark.smoke:
        raw = made_small(raw)
    keys = {name: one for name, one in raw.items() if name != "sources"}
    return keys | {
        "model": {"kind": "pipeline", "sources": [*raw["sources"], exploring]},
        "evaluation": {"ks": [10, K], "baselines": [], "bootstrap_samples": 10},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }


def measured(asking: Asking, search: PipelineSearch, queries: Queries) -> dict[str, float]:
    """Return the share of new items in lists, and recall of both kinds of items."""
    top = StageRanker(asking, search, whole)(queries, K)
    new = search.joined.new
    found = {"shown": float(is_among(top[top >= 0].astype(np.int64), new).mean())}
    items, owner = queries.relevant.values.numpy(), queries.relevant.owners().numpy()
    hit = (top[owner] == items[:, None]).any(1)
    is_new = is_among(items, new)
    for name, chosen in (("known", ~is_new), ("new", is_new)):
        count = np.bincount(owner[chosen], minlength=len(queries))
        hits = np.bincount(owner[chosen & hit], minlength=len(queries))
        asked = count > 0
        found[name] = float((hits[asked] / count[asked]).mean()) if asked.any() else 0.0
    return {name: round(value, 5) for name, value in found.items()}


def reserving(search: PipelineSearch, columns: CatalogueColumns, places: int) -> PipelineSearch:
    """Return the pipeline with so many places for new items."""
    if not places:
        return search
    rules = (Reserve(reserve=places, of=NEW),)
    return replace(search, rules=Rules.compiled(rules, columns, search.joined.num_items))


def draw(reserved: Figures, path: Path) -> None:
    """Draw recall of known and of new items over the share of places that new ones have."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")
    shown = [100 * one["shown"] for one in reserved.values()]
    for name, colour in (("known", "tab:blue"), ("new", "tab:red")):
        found = [one[name] for one in reserved.values()]
        axis.plot(shown, found, "o-", color=colour, label=f"{name} items")
    for place, (x, one) in zip(reserved, zip(shown, reserved.values(), strict=True), strict=True):
        axis.annotate(place, (x, one["known"]), xytext=(0, 6), textcoords="offset points")
    axis.set_xlabel("% of places with new items (numbers: places reserved of 20)")
    axis.set_ylabel("recall@20")
    axis.set_ylim(bottom=0)
    axis.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    benchmark = Benchmark("new_items", __doc__ or "")
    keep_freed_memory()
    picture = [one.partition("=")[2] for one in benchmark.overrides if one.startswith("picture=")]
    overrides = [one for one in benchmark.overrides if not one.startswith("picture=")]
    with tempfile.TemporaryDirectory(prefix="new-items-") as place:
        folder = Path(place)
        config = config_of(keys_in(folder, benchmark, overrides), source=NEW, folder=folder)
        result = train(config)
        assert result is not None
        data = trained_on_all(open_pipeline(config, Given()).data)
        search = search_in(open_model(result.bundle), data)
        asking = Asking.before(config, data, TEST)
        queries = queries_of(config, data, TEST, config.evaluation.max_queries)
        columns = CatalogueColumns(data.schema, lambda: data.tables.items)

        found: dict[str, Figures] = {"reserved": {}}
        usual = replace(search, takes=(*search.takes[:-1], 20))
        for places in RESERVED:
            one = reserving(usual, columns, places)
            found["reserved"][str(places)] = measured(asking, one, queries)
        by_rank = replace(search.joined, fusion=ByRank(60.0), ranker=None)
        for name, joined in (("learned", search.joined), ("reciprocal_rank", by_rank)):
            found[name] = {}
            for take in TAKES:
                one = replace(search, takes=(*search.takes[:-1], take), joined=joined)
                found[name][str(take)] = measured(asking, one, queries)
        for what, own in found.items():
            for size, values in own.items():
                cells = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
                benchmark.row(f"{what} {size}", cells)
        items = len(search.joined.new)
        relevant = is_among(queries.relevant.values.numpy(), search.joined.new)
        about = {"items": data.num_items, "new_items": items, "queries": len(queries)}
        about |= {"share_of_relevant": round(float(relevant.mean()), 4)}
        benchmark.row("new items", str(about))
        if picture:
            draw(found["reserved"], Path(picture[0]))
        benchmark.finish({**found, "about": about})


if __name__ == "__main__":
    main()
