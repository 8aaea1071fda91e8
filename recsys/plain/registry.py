"""The plain models by the name of their kind. To add one: a file next to this one, an entry here.

A baseline of a report is one of them under a name of its own (`NAMED`).
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from recsys.plain.attributes import AttributePopularity, AttributesConfig
from recsys.plain.chebyshev import ChebyshevFilter, ChebyshevFilterConfig
from recsys.plain.factorised import ImplicitAls, ImplicitAlsConfig
from recsys.plain.graph import GraphFilter, GraphFilterConfig
from recsys.plain.interactions import Baseline, user_items
from recsys.plain.kind import Counted, PlainKind
from recsys.plain.limits import (
    no_attributes,
    no_implicit,
    no_times,
    too_large_for_ease,
    too_long_for_chebyshev,
    too_long_for_graph,
    too_long_for_votes,
    too_many_pairs,
)
from recsys.plain.linear import Ease, EaseConfig
from recsys.plain.markov import MarkovChain, MarkovConfig
from recsys.plain.neighbours import ItemKNN, ItemKNNConfig
from recsys.plain.popularity import Popularity, PopularityConfig
from recsys.plain.session_items import SessionItems, SessionItemsConfig
from recsys.plain.session_knn import SessionKNN, SessionKNNConfig
from recsys.retrieval.follow import follow_counts

MICROSECONDS_A_DAY = 86_400_000_000

PlainModelConfig = Annotated[
    PopularityConfig
    | ItemKNNConfig
    | EaseConfig
    | GraphFilterConfig
    | ChebyshevFilterConfig
    | ImplicitAlsConfig
    | SessionItemsConfig
    | MarkovConfig
    | SessionKNNConfig
    | AttributesConfig,
    Field(discriminator="kind"),
]


def _settings(config: Any, *without: str) -> dict[str, Any]:
    return dict(config.model_dump(exclude={"kind", *without}))


def _of_sequences(
    fit: Callable[..., Baseline], *without: str
) -> Callable[[Any, Counted], Baseline]:
    """Return what fits on the items of each sequence; without: settings that it does not take."""
    return lambda config, rows: fit(
        rows.sequence,
        rows.item,
        rows.num_items,
        weight=rows.weight,
        **_settings(config, *without),
    )


def _popularity(config: PopularityConfig, rows: Counted) -> Popularity:
    window = None if config.window_days is None else round(config.window_days * MICROSECONDS_A_DAY)
    of_users = (rows.user, rows.item, rows.num_items)
    return Popularity.fit(*of_users, time=rows.time, window=window, weight=rows.weight)


def _neighbours(config: SessionKNNConfig, rows: Counted) -> SessionKNN:
    of_sequences = (rows.sequence, rows.item, rows.num_items)
    return SessionKNN.fit(*of_sequences, time=rows.time, weight=rows.weight, **_settings(config))


def _attributes(config: AttributesConfig, rows: Counted) -> AttributePopularity:
    counts = np.bincount(rows.item, rows.weight, minlength=rows.num_items).astype(np.float32)
    follow = follow_counts(
        rows.sequence,
        rows.item,
        rows.num_items,
        steps=config.steps,
        lag_decay=config.lag_decay,
        weight=rows.weight,
    )
    settings = _settings(config, "lag_decay")
    return AttributePopularity.of(counts, follow, rows.attributes, **settings)


def _of_matrix(of: Callable[..., Baseline]) -> Callable[[Any, Counted], Baseline]:
    """Return what fits on the items of each sequence as a matrix."""

    def fit(config: Any, rows: Counted) -> Baseline:
        matrix = user_items(rows.sequence, rows.item, rows.num_items, weight=rows.weight)
        return of(matrix, **_settings(config))

    return fit


_kind = partial(PlainKind, reads="items")
_ordered = partial(_kind, of_order=True, breaks_ties=True)

PLAIN: dict[str, PlainKind] = {
    "popularity": _kind(
        PopularityConfig, Popularity, _popularity, no_times, breaks_ties=True, falls_back=False
    ),
    "item_knn": _kind(ItemKNNConfig, ItemKNN, _of_sequences(ItemKNN.fit)),
    "ease": _kind(EaseConfig, Ease, _of_sequences(Ease.fit, "max_items"), too_large_for_ease),
    "gf_cf": _kind(
        GraphFilterConfig, GraphFilter, _of_sequences(GraphFilter.fit), too_long_for_graph
    ),
    "cheby_cf": _kind(
        ChebyshevFilterConfig,
        ChebyshevFilter,
        _of_matrix(ChebyshevFilter.of),
        too_long_for_chebyshev,
    ),
    "ials": _kind(ImplicitAlsConfig, ImplicitAls, _of_matrix(ImplicitAls.of), no_implicit),
    "session_items": _ordered(
        SessionItemsConfig, SessionItems, _of_sequences(SessionItems.fit), of_seen=True
    ),
    "markov": _ordered(MarkovConfig, MarkovChain, _of_sequences(MarkovChain.fit), too_many_pairs),
    "v_sknn": _ordered(SessionKNNConfig, SessionKNN, _neighbours, too_long_for_votes),
    "attributes": _ordered(
        AttributesConfig,
        AttributePopularity,
        _attributes,
        no_attributes,
        falls_back=False,
        reads_attributes=True,
    ),
}


def fit_plain(config: Any, rows: Counted) -> Baseline:
    """Return the model of these settings, fitted on the training rows."""
    return PLAIN[config.kind].fit(config, rows)
