"""What joins and ranks candidates, learnt on requests of which it is known what was right.

Whether trees are better than the fusion, and the fusion than each source, is found out on requests
that are held out: a fifth of them, or where that is few each fifth in turn, with what is learnt on
the others. What is kept is fitted on all requests.
"""

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.facts import Attribute, ItemFacts
from recsys.features.pipeline.fusing import fit_fusion
from recsys.features.pipeline.model import JoinedModel
from recsys.features.pipeline.row_ranker import RowRanker
from recsys.features.pipeline.trees import RankingTrees
from recsys.features.requests.ranked import ASKED_AT
from recsys.features.requests.table import user_table
from recsys.pipeline.config import Learned, Ranker, Trees
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.evaluation.results import SOURCE
from recsys.training.families.pipeline.asking import Labelled, asked_at
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.ranking import TrainRanker
from recsys.training.families.plain.rows import item_values

LOG = logging.getLogger(__name__)
HELD_OUT = 0.2
ENOUGH = 2000
"""Held-out requests, with which no further fifth is held out."""
_K = 20
_FUSED, _RANKED = "fused", "ranked"


def learnt(
    config: PipelineExperiment,
    data: Dataset,
    labelled: Labelled,
    queries: Queries,
    train: TrainRanker,
) -> tuple[JoinedModel, dict[str, float]]:
    """Return what joins and ranks the candidates of `queries`, and its metrics on some held out.

    The metrics are those of the same ways learnt on the other requests; empty where too few are
    there to hold some out. A ranker of the engine, which `train` trains, is that of these others.

    Raises:
        ConfigError: the library of the trees is not installed, or there is too little to learn.
    """
    check_enough(config, len(queries))
    held_out = held_out_requests(config, len(queries))
    ranker = None
    if held_out:
        metrics, ranker = _compared(config, data, labelled, queries, held_out, train)
        found = {name: values[f"ndcg_at_{_K}"] for name, values in metrics.items()}
        count = sum(int(held.sum()) for held in held_out)
        said = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        LOG.info(f"NDCG at {_K} on {count:,} held-out validation requests: {said}")
        kept = _kept(config, found)
        of_kept = metrics[kept]
    else:
        kept, of_kept = _RANKED if isinstance(config.model.rank, Trees) else _FUSED, {}
    sources = [f"{SOURCE}{name}" for name in config.model.names]
    only = sources.index(kept) if kept in sources else None
    joined = _fitted(config, data, labelled, with_trees=kept == _RANKED, only=only)
    if kept == _RANKED and isinstance(config.model.rank, Ranker):
        joined = replace(joined, ranker=ranker, keeps=config.model.rank.candidates)
    return joined, of_kept


def _kept(config: PipelineExperiment, found: dict[str, float]) -> str:
    """Return which of the compared orders the pipeline has; what it leaves out is said.

    Each has to be better than those before it: all joined, a source alone, which only `Learned`
    can keep, and the trees.
    """
    best = max((name for name in found if name.startswith(SOURCE)), key=lambda name: found[name])
    learned = isinstance(config.model.fuse, Learned)
    can = [_FUSED, *([best] if learned else []), *([_RANKED] if _RANKED in found else [])]
    kept = max(can, key=lambda name: found[name])
    if _RANKED in found and kept != _RANKED:
        what = "trees are" if isinstance(config.model.rank, Trees) else "ranker is"
        LOG.warning(f"the {what} no better than the order before, which stays")
    if kept != _RANKED and found[best] > found[_FUSED]:
        LOG.warning(
            f"{best} alone is better than all of them joined ({found[best]:.4f} to "
            f"{found[_FUSED]:.4f} on held-out validation requests)"
            + (": its order stays, before what only the others name" if learned else "")
        )
    return kept


def facts_of(data: Dataset) -> ItemFacts:
    """Return what is known of the items besides what sources say."""
    attributes = tuple(Attribute(values) for values in item_values(data))
    return ItemFacts(data.train_counts, data.items.dense.numpy().copy(), attributes)


def new_items(config: PipelineExperiment, data: Dataset) -> NDArray[np.int64]:
    """Return the rows of items that are new, ascending; none where no source names such."""
    days = [one.new_items.days for one in config.model.sources if one.new_items is not None]
    if not days:
        return np.zeros(0, np.int64)
    trained = data.part == TRAIN
    events = data.tables.events
    first = np.full(data.num_items, np.iinfo(np.int64).max)
    np.minimum.at(first, events.item_row[trained], events.time[trained])
    is_new = data.train_counts == 0
    if data.schema.interactions.time is not None and trained.any():
        since = events.time[trained].max() - round(max(days) * 86_400_000_000)
        is_new |= first >= since
    return np.flatnonzero(is_new)


def check_enough(config: PipelineExperiment, count: int) -> None:
    """Refuse so few validation requests that none can be held out of what a ranker learns from.

    Raises:
        ConfigError: they are too few.
    """
    if isinstance(config.model.rank, Ranker) and not held_out_requests(config, count):
        raise ConfigError(
            f"model.rank: {count:,} validation requests are too few for a ranker to learn "
            "from: choose a larger split.validation, or set model.rank: none"
        )


def held_out_requests(config: PipelineExperiment, count: int) -> list[NDArray[np.bool_]]:
    """Return which requests are held out at a time, (B,) each; none where there are too few.

    A ranker of the engine is trained once, and so compared on one fifth.
    """
    drawn = np.random.default_rng(config.training.seed).random(count) // HELD_OUT
    fifths = [one for number in range(5) if 0 < (one := drawn == number).sum() < count]
    most = 1 if isinstance(config.model.rank, Ranker) else len(fifths)
    found: list[NDArray[np.bool_]] = []
    for one in fifths[:most]:
        if sum(map(np.sum, found)) < ENOUGH:
            found.append(one)
    return found


def _compared(
    config: PipelineExperiment,
    data: Dataset,
    labelled: Labelled,
    queries: Queries,
    held_out: list[NDArray[np.bool_]],
    train: TrainRanker,
) -> tuple[dict[str, dict[str, float]], RowRanker | None]:
    """Return the metrics of each source and stage on held-out requests, learnt on the others.

    And the ranker of the engine that was trained, where one was. held_out: what is held out at a
    time, (B,) each.
    """
    ks = tuple(sorted({_K, *config.evaluation.ks}))
    values: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    ranker = None
    for held in held_out:
        tops, ranker = _tops(config, data, labelled, held, train, ks[-1])
        relevant = queries.relevant.take(torch.from_numpy(np.flatnonzero(held)))
        for name, top in tops.items():
            for metric, found in ranking_metrics(top, relevant, ks).items():
                values.setdefault(name, {}).setdefault(metric, []).append(found)
    means = {
        name: {metric: float(np.nanmean(np.concatenate(parts))) for metric, parts in of.items()}
        for name, of in values.items()
    }
    return means, ranker


def _tops(
    config: PipelineExperiment,
    data: Dataset,
    labelled: Labelled,
    held: NDArray[np.bool_],
    train: TrainRanker,
    k: int,
) -> tuple[dict[str, Tensor], RowRanker | None]:
    """Return the best k items of each source and stage for the requests `held`, (H, k) each."""
    one = _fitted(config, data, labelled.of(~held), with_trees=isinstance(config.model.rank, Trees))
    rest = labelled.of(held)
    candidates = rest.candidates
    tops = {
        f"{SOURCE}{name}": candidates.ordered(_by_rank(candidates, number), k)[1]
        for number, name in enumerate(config.model.names)
    }
    tops[_FUSED] = one.fused(candidates, k).rows
    ranker, users = None, None
    if isinstance(config.model.rank, Ranker):
        ranker = train(one, labelled, held)
        one = replace(one, ranker=ranker, keeps=config.model.rank.candidates)
        asked = user_table(data.tables, rest.users)
        times = asked_at(data, VALIDATION)[rest.users]
        users = ranker.users(asked.append_column(ASKED_AT, pa.array(times)))
    if one.ranker is not None:
        tops[_RANKED] = one.ranked(candidates, rest.history, k, users).rows
    return tops, ranker


def _fitted(
    config: PipelineExperiment,
    data: Dataset,
    labelled: Labelled,
    *,
    with_trees: bool,
    only: int | None = None,
) -> JoinedModel:
    settings, counts = config.model, data.train_counts
    fusion = fit_fusion(settings.fuse, labelled.candidates, counts, labelled.hit, only)
    joined = JoinedModel(fusion, facts_of(data), new_items(config, data), None, 0)
    rank = settings.rank
    if not with_trees or not isinstance(rank, Trees):
        return joined
    kept = labelled.best(joined, rank.candidates)
    inputs = joined.inputs(kept.candidates, kept.history)
    lengths = kept.candidates.items.lengths().numpy()
    trees = RankingTrees.fit(rank, inputs, kept.hit, lengths, config.training.seed)
    gains = trees.gains(joined.names(settings.names))
    best = ", ".join(f"{name} {share:.0%}" for name, share in list(gains.items())[:5])
    LOG.info(f"what the trees gain most by: {best}")
    return replace(joined, ranker=trees, keeps=rank.candidates)


def _by_rank(candidates: Candidates, source: int) -> NDArray[np.float64]:
    rank = candidates.rank[:, source].astype(np.float64)
    return np.where(rank > 0, -rank, -np.inf)
