"""Which plain models another model is compared with, and why others are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.models.kind import ModelConfig
from recsys.plain.attributes import AttributesConfig
from recsys.plain.chebyshev import ChebyshevFilterConfig
from recsys.plain.factorised import ImplicitAlsConfig
from recsys.plain.graph import GraphFilterConfig
from recsys.plain.kind import Counted, PlainConfig
from recsys.plain.limits import NO_IMPLICIT, NO_TIMES, ease_in_words, implicit_is_installed
from recsys.plain.linear import EaseConfig
from recsys.plain.markov import MarkovConfig
from recsys.plain.neighbours import ItemKNNConfig
from recsys.plain.popularity import PopularityConfig
from recsys.plain.registry import MICROSECONDS_A_DAY, PLAIN, fit_plain
from recsys.plain.session_items import SessionItemsConfig
from recsys.plain.session_knn import SessionKNNConfig
from recsys.training.config.baselines import BaselineName, about_sessions
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.retrieval import RetrievalEvaluationConfig

with on_first_use():
    from recsys.features.dataset.dataset import Dataset
    from recsys.features.dataset.sessions import Sessions
    from recsys.plain.answering import PlainModel, PopularFirst
    from recsys.training.families.plain.fallback import Answering, PlainRanker
    from recsys.training.families.plain.rows import counted

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


def settings_of(config: RetrievalEvaluationConfig) -> dict[str, PlainConfig]:
    """Return the settings of each baseline by its name in `evaluation.baselines`."""
    return {
        "popularity": PopularityConfig(),
        "popularity_recent": PopularityConfig(window_days=config.popularity_window_days),
        "item_knn": ItemKNNConfig(),
        "ease": EaseConfig(max_items=config.ease_max_items),
        "gf_cf": GraphFilterConfig(),
        "cheby_cf": ChebyshevFilterConfig(),
        "ials": ImplicitAlsConfig(),
        "session_items": SessionItemsConfig(),
        "markov": MarkovConfig(steps=1, power=1.0, backward=0.0),
        "markov_10": MarkovConfig(),
        "v_sknn": SessionKNNConfig(),
        "attributes": AttributesConfig(),
    }


def check_baselines(config: ExperimentConfig) -> None:
    """Refuse baselines that were asked for by name and are not available, before any work is done.

    Raises:
        ConfigError: which, and why.
    """
    named: Any = config.evaluation
    if "ials" in named.baselines and not implicit_is_installed():
        raise ConfigError(f"evaluation.baselines: ials: {NO_IMPLICIT}")
    if "popularity_recent" in named.baselines and config.schema_.interactions.time is None:
        raise ConfigError(f"evaluation.baselines: popularity_recent: {NO_TIMES}")


def baseline_rankers(
    data: Dataset,
    config: RetrievalEvaluationConfig,
    sessions: Sessions | None = None,
    own: Sequence[PlainConfig] = (),
) -> tuple[dict[str, PlainRanker], dict[str, str]]:
    """Return the baselines that `config` names, fitted on the training rows.

    Args:
        data: what they are fitted on.
        config: their names and settings.
        sessions: where the model is one of sessions, how the log is cut. Then they are fitted on
            sessions and answer from the queries' own history, in its order; else they are fitted
            on users and answer from all items of a user.
        own: settings of plain models that are among what is compared already: none of the
            baselines is their equal.

    Returns:
        The rankers by name, and the reason of each one that was left out.

    Raises:
        ConfigError: one that was asked for by name is not available.
    """
    chosen = _chosen(config, sessions, own)
    rows = counted(data, sessions, attributes="attributes" in chosen)
    popular = popular_first(rows, config.popularity_window_days)
    answering = Answering(filter_seen=config.filter_seen, of_sessions=sessions is not None)
    queries = _queries(data, config, of_sessions=sessions is not None)
    rankers: dict[str, PlainRanker] = {}
    left_out: dict[str, str] = {}
    for name, settings in chosen.items():
        kind = PLAIN[settings.kind]
        reason = _REASONS.get(name, _no_reason)(config, rows)
        reason = reason or kind.why_not(settings, rows, queries)
        if reason is not None:
            left_out[name] = reason
            if reason == NO_IMPLICIT and name in config.baselines:
                raise ConfigError(f"evaluation.baselines: {name}: {reason}")
            continue
        model = PlainModel.of(kind, fit_plain(settings, rows), popular)
        rankers[name] = PlainRanker(model, answering)
    return rankers, left_out


def named_as(model: ModelConfig, config: RetrievalEvaluationConfig) -> set[str]:
    """Return the names of the baselines that have the settings of a model; none of one that learns.

    Limits, which change no score, do not count.
    """

    def scoring(one: ModelConfig) -> dict[str, Any]:
        return one.model_dump(exclude={"max_items"})

    return {name for name, one in settings_of(config).items() if scoring(one) == scoring(model)}


def popular_first(rows: Counted, window_days: float) -> PopularFirst:
    """Return the order that plain models fall back on."""
    of_users = (rows.user, rows.item, rows.num_items)
    return PopularFirst.of(
        *of_users,
        time=rows.time,
        window=round(window_days * MICROSECONDS_A_DAY),
        weight=rows.weight,
    )


def _chosen(
    config: RetrievalEvaluationConfig, sessions: Sessions | None, own: Sequence[PlainConfig]
) -> Mapping[str, PlainConfig]:
    names = config.baselines
    why = about_sessions(names)
    if sessions is None and not own and why is not None:
        raise ConfigError(f"evaluation.baselines: {why}")
    if "auto" in names:
        names = BASELINES if sessions is None else SESSION_BASELINES
    known = settings_of(config)  # sasrec is trained, not fitted: the job's
    return {name: known[name] for name in names if name in known and known[name] not in own}


def _queries(data: Dataset, config: RetrievalEvaluationConfig, *, of_sessions: bool) -> int:
    """Return how many may ask at most."""
    held_out = (
        data.events_of((TEST,)) if (data.part == TEST).any() else data.events_of((VALIDATION,))
    )
    most = len(held_out) if of_sessions else data.num_users
    return min(most, config.max_queries)


def _no_reason(_config: RetrievalEvaluationConfig, _rows: Counted) -> None:
    return None


def _too_large(config: RetrievalEvaluationConfig, rows: Counted) -> str | None:
    if rows.num_items <= config.ease_max_items:
        return None
    return f"{ease_in_words(rows)}; evaluation.ease_max_items is {config.ease_max_items:,}"


def _all_hidden(config: RetrievalEvaluationConfig, _rows: Counted) -> str | None:
    if not config.filter_seen:
        return None
    return "it recommends what was seen, which evaluation.filter_seen leaves out"


def _all_recent(config: RetrievalEvaluationConfig, rows: Counted) -> str | None:
    if rows.time is None:
        return None
    span = (int(rows.time.max()) - int(rows.time.min())) / MICROSECONDS_A_DAY
    if span > config.popularity_window_days:
        return None
    return (
        f"the training rows span {span:,.1f} days, all within "
        f"evaluation.popularity_window_days: {config.popularity_window_days:g}"
    )


_REASONS: Mapping[str, Callable[[RetrievalEvaluationConfig, Counted], str | None]] = {
    "popularity_recent": _all_recent,
    "ease": _too_large,
    "session_items": _all_hidden,
}
"""Why a baseline is left out though a model of its kind could be fitted."""
