"""The report of a run: one HTML file that needs no network, no script and no second file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray

from recsys.core.atomic import whole_file
from recsys.embeddings.diagnostics import Diagnosis
from recsys.features.bundle.measured import TEST
from recsys.metrics.intervals import paired_difference
from recsys.training.evaluation.collapse import collapse_warning, group_spread
from recsys.training.evaluation.results import (
    SOURCE,
    STAGES,
    WITHOUT_MEMORY,
    Evaluation,
    Example,
    RankerResult,
)
from recsys.training.reports import plots
from recsys.training.reports.embedding import embedding_section
from recsys.training.reports.map import Map, embedding_map
from recsys.training.reports.relevance import relevance_chart
from recsys.training.reports.representation import representation_curves

TEMPLATE = "report.html"
HEADLINE_K = 20
_COLD_METRICS = {
    "cold_recall": "recall of cold items",
    "cold_alone_recall": "recall of cold items, they alone ranked",
}


@dataclass(frozen=True)
class _Table:
    """Metrics of one length of list: a row a ranker, cells of value, interval, is it the best."""

    title: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...]


def write_report(
    path: Path,
    *,
    title: str,
    config_text: str,
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]],
    item_titles: Sequence[str],
    item_groups: Sequence[str] | None,
    item_vectors: NDArray[np.float32] | None,
    examples: Sequence[Example],
    facts: Mapping[str, str],
    embedding: Diagnosis | None = None,
) -> None:
    """Write the report to `path`.

    Args:
        path: the HTML file; replaced as a whole.
        title: what was trained.
        config_text: the configuration, as YAML.
        evaluation: the rankers' results, the model first.
        history: one mapping a logged step: "step", "epoch", and "loss" or
            "validation/ndcg_at_20" and the like.
        item_titles: n_items titles.
        item_groups: n_items groups that colour the map, or None.
        item_vectors: (n_items, E); None of models without any.
        examples: a few users with what they were shown.
        facts: rows, users, drops: whatever a reader should know of the data.
        embedding: diagnostics of the table.
    """
    k = headline_k(evaluation.ks)
    model = next(iter(evaluation.results))
    text = template_of(TEMPLATE).render(
        title=title,
        model=plots.words(model),
        verdict=f"{verdict(evaluation, k)}{_of_validation(evaluation)}",
        tiles=_tiles(evaluation, k),
        k=k,
        colours={plots.words(n): c for n, c in plots.colour_variables(evaluation).items()},
        charts=_charts(evaluation, history, k),
        map=_map(item_vectors, item_titles, item_groups, evaluation),
        examples=examples,
        tables=_tables(evaluation),
        representation={n: f"{v:.3f}" for n, v in evaluation.representation.items()},
        alarm=_alarm(evaluation, history, item_vectors, item_groups),
        fell_back=evaluation.fallback_words(plots.words),
        left_out={plots.words(name): why for name, why in evaluation.left_out.items()},
        asked=evaluation.asked,
        cold=evaluation.cold,
        ended=evaluation.ended,
        cold_k=None if evaluation.cold is None else evaluation.cold_k(k),
        num_items=len(evaluation.train_counts),
        protocol=evaluation.protocol,
        facts=facts,
        embedding=None if embedding is None else embedding_section(embedding),
        config_text=config_text,
    )
    with whole_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def _of_validation(evaluation: Evaluation) -> str:
    """Say that figures of validation rows are too good; nothing of those of a test part."""
    if evaluation.part == TEST:
        return ""
    return (
        " There is no test part: these are figures on the validation rows, by which the model was "
        "chosen, and they are too good."
    )


def headline_k(ks: Sequence[int]) -> int:
    """Return the cut-off nearest to 20, the one that the headline is about."""
    return min(ks, key=lambda k: (abs(k - HEADLINE_K), k))


def verdict(evaluation: Evaluation, k: int) -> str:
    """Return what the numbers say in a sentence or two, no better than they are."""
    metric = f"recall_at_{k}"
    model, *others = evaluation.results.values()
    found = (
        f"{plots.words(model.name).capitalize()} finds {model.metrics[metric]:.1%} of the items "
    )
    text = f"{found}users interacted with next within its first {k} recommendations"
    baselines = [other for other in others if other.name not in (plots.BEST, *STAGES)]
    if WITHOUT_MEMORY in evaluation.results:
        bare = evaluation.results[WITHOUT_MEMORY].metrics[metric]
        text = f"{text}, {bare:.1%} without its memory of pairs"
    if not baselines:
        return f"{text}."
    best = max(baselines, key=lambda other: other.metrics[metric])
    value, is_source = best.metrics[metric], best.name.startswith(SOURCE)
    name = plots.words(best.name.removeprefix(SOURCE))
    difference = paired_difference(model.per_query[metric], best.per_query[metric])
    said = f"the best {'of its sources' if is_source else 'baseline'}, {name}, finds {value:.1%}"
    if not difference.apart:
        return f"{text}; {said}. The difference is within the error of measurement."
    points = f"{abs(difference.low) * 100:.1f} to {abs(difference.high) * 100:.1f}"
    if difference.mean < 0:
        points = f"{abs(difference.high) * 100:.1f} to {abs(difference.low) * 100:.1f}"
    better = "ahead" if difference.mean > 0 else "behind"
    same = f"same {evaluation.asked}"
    return f"{text}; {said}. The model is {points} points {better} (95 % interval, {same})."


def _tiles(evaluation: Evaluation, k: int) -> list[tuple[str, str, str]]:
    """Return the headline figures: label, value, words below."""
    model, *others = evaluation.results.values()
    tiles = []
    for kind in ("recall", "ndcg"):
        metric = f"{kind}_at_{k}"
        low, high = model.intervals.get(metric, (math.nan, math.nan))
        between = f"95 %: {low:.3f} to {high:.3f}"
        tiles.append((f"{plots.METRICS[kind]}@{k}", f"{model.metrics[metric]:.3f}", between))
    coverage = model.metrics.get(f"coverage_at_{k}")
    if coverage is not None:
        tiles.append(
            (f"coverage@{k}", f"{coverage:.0%}", "of the catalogue recommended at least once")
        )
    for other in others:
        metric = f"recall_at_{k}"
        if other.name == plots.BEST and other.metrics[metric] > 0:
            share = model.metrics[metric] / other.metrics[metric]
            known = "of the best reachable recall"
            tiles.append(("best reachable", f"{share:.0%}", known))
    return tiles


def _alarm(
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]],
    item_vectors: NDArray[np.float32] | None,
    item_groups: Sequence[str] | None,
) -> str | None:
    """Describe the collapse of the item vectors; the test's figures come last."""
    if item_vectors is None:
        return None
    vectors = torch.from_numpy(item_vectors)
    spread = None if item_groups is None else group_spread(vectors, item_groups)
    points = [*history, evaluation.representation]
    return collapse_warning(points, vectors.shape[1], len(vectors), spread=spread)


def _map(
    item_vectors: NDArray[np.float32] | None,
    item_titles: Sequence[str],
    item_groups: Sequence[str] | None,
    evaluation: Evaluation,
) -> Map | None:
    if item_vectors is None:
        return None
    return embedding_map(item_vectors, item_titles, item_groups, evaluation.train_counts)


def _charts(
    evaluation: Evaluation, history: Sequence[Mapping[str, float]], k: int
) -> dict[str, str | None]:
    headline = [f"recall_at_{k}", f"ndcg_at_{k}"]
    return {
        "headline": plots.intervals(evaluation, headline, [f"Recall@{k}", f"NDCG@{k}"]),
        "curves": plots.learning_curves(history, f"ndcg_at_{k}"),
        "representation": representation_curves(history),
        "by_k": plots.metrics_by_k(evaluation),
        "items": plots.slices(evaluation, "items"),
        "item_counts": plots.slices(evaluation, "item counts"),
        "users": plots.slices(evaluation, "users"),
        "sessions": plots.slices(evaluation, "sessions"),
        "cold": _cold_chart(evaluation, k),
        "popularity": plots.popularity(evaluation, k),
        "ended": None if evaluation.ended is None else relevance_chart(evaluation.ended),
    }


def _cold_chart(evaluation: Evaluation, k: int) -> str | None:
    if evaluation.cold is None:
        return None
    places = {"cold": f"among all {len(evaluation.train_counts):,} items"}
    k = evaluation.cold_k(k)
    places["cold_alone"] = f"among the {evaluation.cold.items:,} cold items alone"
    metrics = [f"{place}_recall_at_{k}" for place in places]
    return plots.intervals(evaluation, metrics, [f"Recall@{k}, {w}" for w in places.values()])


def _tables(evaluation: Evaluation) -> list[_Table]:
    """Return a table a length of list, each with all of its metrics."""
    results = list(evaluation.results.values())
    of_k: dict[str, list[str]] = {}
    for metric in results[0].metrics:
        of_k.setdefault(metric.rpartition("_at_")[2], []).append(metric)
    tables = []
    for k, metrics in of_k.items():
        columns = [_cells(results, metric) for metric in metrics]
        rows = zip(
            [plots.words(one.name) for one in results], zip(*columns, strict=True), strict=True
        )
        names = tuple(metric_name(metric) for metric in metrics)
        tables.append(_Table(f"The first {k}", names, tuple(rows)))
    return tables


def _cells(results: Sequence[RankerResult], metric: str) -> list[tuple[str, str, bool]]:
    """Return a cell a ranker: the value, its interval, and whether it is the best."""
    values = [result.metrics.get(metric, math.nan) for result in results]
    compared = [v for v, r in zip(values, results, strict=True) if r.name != plots.BEST]
    best = max((v for v in compared if math.isfinite(v)), default=math.nan)
    cells = []
    for value, result in zip(values, results, strict=True):
        low, high = result.intervals.get(metric, (math.nan, math.nan))
        between = f"{low:.4f} to {high:.4f}" if math.isfinite(low) else ""
        # More novelty is not better by itself, so nothing is the best there.
        is_best = value == best and not metric.startswith("novelty")
        cells.append((f"{value:.4f}", between, is_best and result.name != plots.BEST))
    return cells


def metric_name(metric: str) -> str:
    """Return what people call a metric of lists."""
    kind, at, k = metric.partition("_at_")
    name = _COLD_METRICS.get(kind) or plots.METRICS.get(kind, kind.replace("_", " "))
    unit = " (bits)" if kind == "novelty" else ""
    return f"{name}@{k}{unit}" if at else name


def template_of(name: str) -> jinja2.Template:
    """Return a template of this folder, all of whose names have to be given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["finite"] = math.isfinite
    environment.filters["newest_first"] = newest_first
    return environment.get_template(name)


def newest_first(history: Sequence[str]) -> list[tuple[str, int]]:
    """Return titles from the newest on, and how often each comes in a row."""
    return [(title, len(list(run))) for title, run in groupby(reversed(history))]
