"""Which baselines a retrieval model is compared with, and why others are left out."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from recsys.core.errors import ConfigError
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import TEST
from recsys.training.config.baselines import BaselineName, about_sessions
from recsys.training.config.retrieval import RetrievalEvaluationConfig, RetrievalExperiment
from recsys.training.families.plain.attributes import AttributePopularity, item_values
from recsys.training.families.plain.factorised import ImplicitAls
from recsys.training.families.plain.fallback import Answering, PlainRanker, PopularFirst
from recsys.training.families.plain.graph import GraphFilter, graph_products
from recsys.training.families.plain.interactions import Baseline, Integers
from recsys.training.families.plain.linear import Ease
from recsys.training.families.plain.markov import MarkovChain
from recsys.training.families.plain.neighbours import ItemKNN
from recsys.training.families.plain.popularity import Popularity
from recsys.training.families.plain.rows import (
    TrainingRows,
    why_not_counted,
    why_not_in_memory,
)
from recsys.training.families.plain.session_items import SessionItems
from recsys.training.families.plain.session_knn import SessionKNN, vote_products

BASELINES: tuple[BaselineName, ...] = (
    "popularity",
    "popularity_recent",
    "item_knn",
    "ease",
    "gf_cf",
    "ials",
)
"""What `auto` means, in the order of the report."""
SESSION_BASELINES: tuple[BaselineName, ...] = (
    "popularity",
    "popularity_recent",
    "item_knn",
    "session_items",
    "markov",
    "markov_10",
    "v_sknn",
    "attributes",
)
"""What `auto` means for a model of sessions, in the order of the report."""
MICROSECONDS_A_DAY = 86_400_000_000
_NO_IMPLICIT = "the package implicit is not installed (pip install 'recsys-engine[implicit]')"
_NO_TIMES = "the log has no times (schema.interactions.time)"
_NO_ATTRIBUTES = "the items have no categorical feature but their id (schema.features)"
# Ten minutes of a core: more would delay the training.
_MOST_GRAPH_PRODUCTS = 500_000_000_000
_MOST_VOTE_PRODUCTS = 50_000_000_000


_ARE_POPULARITY = ("popularity", "popularity_recent", "attributes")
"""They are popularity themselves, that of attributes with new items in their places."""
_BREAK_TIES = (*_ARE_POPULARITY, "session_items", "markov", "markov_10", "v_sknn")
"""They order items without a score by a popularity of their own."""
_OF_SEQUENCES: dict[str, Callable[[Integers, Integers, int], Baseline]] = {
    "item_knn": ItemKNN.fit,
    "ease": Ease.fit,
    "gf_cf": GraphFilter.fit,
    "ials": ImplicitAls.fit,
    "session_items": SessionItems.fit,
    "markov": partial(MarkovChain.fit, steps=1, power=1.0, backward=0.0),
    "markov_10": MarkovChain.fit,
}


def check_baselines(config: RetrievalExperiment) -> None:
    """Refuse baselines that were asked for by name and are not available, before any work is done.

    Raises:
        ConfigError: which, and why.
    """
    named = config.evaluation.baselines
    if "ials" in named and not _implicit_is_installed():
        raise ConfigError(f"evaluation.baselines: ials: {_NO_IMPLICIT}")
    if "popularity_recent" in named and config.schema_.interactions.time is None:
        raise ConfigError(f"evaluation.baselines: popularity_recent: {_NO_TIMES}")


def baseline_rankers(
    data: Dataset, config: RetrievalEvaluationConfig, sessions: Sessions | None = None
) -> tuple[dict[str, PlainRanker], dict[str, str]]:
    """Return the baselines that `config` names, fitted on the training rows.

    Args:
        data: what they are fitted on.
        config: their names and settings.
        sessions: where the model is one of sessions, how the log is cut. Then they are fitted on
            sessions and answer from the queries' own history, in its order; else they are fitted
            on users and answer from all items of a user.

    Returns:
        The rankers by name, and the reason of each one that was left out.

    Raises:
        ConfigError: one that was asked for by name is not available.
    """
    names = config.baselines
    why = about_sessions(names)
    if sessions is None and why is not None:
        raise ConfigError(f"evaluation.baselines: {why}")
    if "auto" in names:
        names = BASELINES if sessions is None else SESSION_BASELINES
    names = tuple(name for name in names if name != "sasrec")  # trained, not fitted: the job's
    training_rows = TrainingRows.of(data, sessions)
    of_users = (training_rows.user, training_rows.item, data.num_items)
    popular = PopularFirst.of(*of_users, time=training_rows.time, window=_window(config))
    rankers: dict[str, PlainRanker] = {}
    left_out: dict[str, str] = {}
    for name in names:
        reason = _REASONS.get(name, _no_reason)(data, config, training_rows)
        if reason is None:
            fitted = _fitted(name, data, config, training_rows)
            answering = Answering(
                filter_seen=config.filter_seen,
                of_sessions=sessions is not None,
                breaks_ties=name in _BREAK_TIES,
                falls_back=name not in _ARE_POPULARITY,
            )
            rankers[name] = PlainRanker(fitted, popular, answering)
        else:
            left_out[name] = reason
    return rankers, left_out


def _fitted(
    name: str, data: Dataset, config: RetrievalEvaluationConfig, training_rows: TrainingRows
) -> Baseline:
    of_users = (training_rows.user, training_rows.item, data.num_items)
    of_sequences = (training_rows.sequence, training_rows.item, data.num_items)
    if name == "popularity":
        return Popularity.fit(*of_users)
    if name == "popularity_recent":
        return Popularity.fit(*of_users, time=training_rows.time, window=_window(config))
    if name == "v_sknn":
        return SessionKNN.fit(*of_sequences, time=training_rows.time)
    if name == "attributes":
        return AttributePopularity.fit(*of_sequences, item_values(data))
    return _OF_SEQUENCES[name](*of_sequences)


def _window(config: RetrievalEvaluationConfig) -> int:
    return round(config.popularity_window_days * MICROSECONDS_A_DAY)


def _implicit_is_installed() -> bool:
    return find_spec("implicit") is not None


def _no_reason(_data: Dataset, _config: RetrievalEvaluationConfig, _rows: TrainingRows) -> None:
    return None


def _not_recent(
    _data: Dataset, config: RetrievalEvaluationConfig, training_rows: TrainingRows
) -> str | None:
    if training_rows.time is None:
        return _NO_TIMES
    span = int(training_rows.time.max() - training_rows.time.min())
    if span > _window(config):
        return None
    return (
        f"the training rows span {span / MICROSECONDS_A_DAY:,.1f} days, all within "
        f"evaluation.popularity_window_days: {config.popularity_window_days:g}"
    )


def _not_ease(data: Dataset, config: RetrievalEvaluationConfig, _rows: TrainingRows) -> str | None:
    needed = data.num_items**2 * 4
    words = f"a matrix of {data.num_items:,} x {data.num_items:,} items needs {needed / 1e9:.1f} GB"
    if data.num_items > config.ease_max_items:
        return f"{words}; evaluation.ease_max_items is {config.ease_max_items:,}"
    return why_not_in_memory(needed, words)


def _not_graph(
    data: Dataset, config: RetrievalEvaluationConfig, training_rows: TrainingRows
) -> str | None:
    num_queries = min(data.num_users, config.max_queries)
    products = graph_products(len(training_rows.item), data.num_items, num_queries)
    return None if products <= _MOST_GRAPH_PRODUCTS else _too_long(products)


def _not_following(
    data: Dataset, _config: RetrievalEvaluationConfig, training_rows: TrainingRows
) -> str | None:
    return why_not_counted(len(training_rows.item), data.num_items)


def _not_neighbours(
    data: Dataset, config: RetrievalEvaluationConfig, training_rows: TrainingRows
) -> str | None:
    num_queries = min(len(data.events_of((TEST,))), config.max_queries)
    products = vote_products(training_rows.sequence, num_queries)
    return None if products <= _MOST_VOTE_PRODUCTS else _too_long(products)


def _not_session_items(
    _data: Dataset, config: RetrievalEvaluationConfig, _rows: TrainingRows
) -> str | None:
    if not config.filter_seen:
        return None
    return "it recommends what was seen, which evaluation.filter_seen leaves out"


def _not_attributes(
    data: Dataset, config: RetrievalEvaluationConfig, training_rows: TrainingRows
) -> str | None:
    return _not_following(data, config, training_rows) if item_values(data) else _NO_ATTRIBUTES


def _too_long(products: float) -> str:
    return f"its scores would take some {products:.0e} multiplications, minutes to hours"


def _not_ials(_data: Dataset, config: RetrievalEvaluationConfig, _rows: TrainingRows) -> str | None:
    if _implicit_is_installed():
        return None
    if "ials" in config.baselines:
        raise ConfigError(f"evaluation.baselines: ials: {_NO_IMPLICIT}")
    return _NO_IMPLICIT


_REASONS: dict[str, Callable[[Dataset, RetrievalEvaluationConfig, TrainingRows], str | None]] = {
    "popularity_recent": _not_recent,
    "ease": _not_ease,
    "gf_cf": _not_graph,
    "ials": _not_ials,
    "session_items": _not_session_items,
    "markov_10": _not_following,
    "v_sknn": _not_neighbours,
    "attributes": _not_attributes,
}
