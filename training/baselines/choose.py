"""Which baselines stand beside a retrieval model; those left out have a reason that is told."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from features.dataset import Dataset
from features.split import TRAIN
from recsys.batch import Jagged
from recsys.embeddings.memory import free_memory_bytes
from recsys.errors import ConfigError
from training.baselines.factorised import ImplicitAls
from training.baselines.graph import GraphFilter, graph_products
from training.baselines.linear import Ease
from training.baselines.neighbours import ItemKNN
from training.baselines.popularity import Popularity
from training.baselines.taken import CELLS_AT_ONCE, Baseline
from training.config import EvaluationConfig, ExperimentConfig
from training.evaluate import CHUNK, Ranker, score_ranker

BASELINES = ("popularity", "popularity_recent", "item_knn", "ease", "gf_cf", "ials")
"""In the order of the report."""
MICROSECONDS_A_DAY = 86_400_000_000
_NO_IMPLICIT = "the package implicit is not installed (pip install 'recsys-engine[implicit]')"
_NO_TIMES = "the log has no times (schema.interactions.time)"
# Ten minutes of a core: more would keep whoever trains waiting.
_MOST_GRAPH_PRODUCTS = 500_000_000_000


def check_baselines(config: ExperimentConfig) -> None:
    """Refuse baselines that were asked for by name and cannot be had, before any work is done.

    Raises:
        ConfigError: which, and why.
    """
    named = config.evaluation.baselines
    if "ials" in named and not _implicit_is_installed():
        raise ConfigError(f"evaluation.baselines: ials: {_NO_IMPLICIT}")
    if "popularity_recent" in named and config.schema_.interactions.time is None:
        raise ConfigError(f"evaluation.baselines: popularity_recent: {_NO_TIMES}")


def baseline_rankers(
    data: Dataset, config: EvaluationConfig
) -> tuple[dict[str, Ranker], dict[str, str]]:
    """Return the baselines that `config` names, fitted on the training rows.

    Returns:
        The rankers by name, and the reason of each one that was left out.
    """
    names = BASELINES if "auto" in config.baselines else config.baselines
    rankers: dict[str, Ranker] = {}
    left_out: dict[str, str] = {}
    for name in names:
        reason = _REASONS.get(name, _no_reason)(data, config)
        if reason is None:
            rankers[name] = _ranker(_fitted(name, data, config), data, config)
        else:
            left_out[name] = reason
    return rankers, left_out


def _fitted(name: str, data: Dataset, config: EvaluationConfig) -> Baseline:
    rows, events = data.events_of((TRAIN,)), data.tables.events
    taken = (events.user_row[rows], events.item_row[rows], data.num_items)
    if name == "popularity_recent":
        return Popularity.fit(*taken, time=events.time[rows], window=_window(config))
    if name == "item_knn":
        return ItemKNN.fit(*taken)
    if name == "ease":
        return Ease.fit(*taken)
    if name == "gf_cf":
        return GraphFilter.fit(*taken)
    return ImplicitAls.fit(*taken) if name == "ials" else Popularity.fit(*taken)


def _ranker(fitted: Baseline, data: Dataset, config: EvaluationConfig) -> Ranker:
    def score(seen: Jagged, _users: NDArray[np.int64]) -> NDArray[np.float32]:
        return fitted.score(seen.values.numpy(), seen.offsets.numpy())

    at_once = min(CHUNK, max(1, CELLS_AT_ONCE // data.num_items))
    return score_ranker(score, filter_seen=config.filter_seen, queries_at_once=at_once)


def _window(config: EvaluationConfig) -> int:
    return round(config.popularity_window_days * MICROSECONDS_A_DAY)


def _implicit_is_installed() -> bool:
    return find_spec("implicit") is not None


def _no_reason(_data: Dataset, _config: EvaluationConfig) -> None:
    return None


def _not_recent(data: Dataset, config: EvaluationConfig) -> str | None:
    if data.schema.interactions.time is None:
        return _NO_TIMES
    time = data.tables.events.time[data.events_of((TRAIN,))]
    span = int(time.max() - time.min())
    if span > _window(config):
        return None
    return (
        f"the training rows span {span / MICROSECONDS_A_DAY:,.1f} days, all within "
        f"evaluation.popularity_window_days: {config.popularity_window_days:g}"
    )


def _not_ease(data: Dataset, config: EvaluationConfig) -> str | None:
    needed = data.num_items**2 * 4
    words = f"a matrix of {data.num_items:,} x {data.num_items:,} items needs {needed / 1e9:.1f} GB"
    if data.num_items > config.ease_max_items:
        return f"{words}; evaluation.ease_max_items is {config.ease_max_items:,}"
    free = free_memory_bytes()
    # A tenth more, and half a gigabyte, for what else is in memory meanwhile.
    if free is not None and 1.1 * needed + 5e8 > free:
        return f"{words}, and {free / 1e9:.1f} GB of memory are free"
    return None


def _not_graph(data: Dataset, config: EvaluationConfig) -> str | None:
    products = graph_products(
        len(data.events_of((TRAIN,))), data.num_items, min(data.num_users, config.max_queries)
    )
    if products <= _MOST_GRAPH_PRODUCTS:
        return None
    return f"its scores would take some {products:.0e} multiplications, minutes to hours"


def _not_ials(_data: Dataset, config: EvaluationConfig) -> str | None:
    if _implicit_is_installed():
        return None
    if "ials" in config.baselines:
        raise ConfigError(f"evaluation.baselines: ials: {_NO_IMPLICIT}")
    return _NO_IMPLICIT


_REASONS: dict[str, Callable[[Dataset, EvaluationConfig], str | None]] = {
    "popularity_recent": _not_recent,
    "ease": _not_ease,
    "gf_cf": _not_graph,
    "ials": _not_ials,
}
