"""Why a plain model cannot be fitted on a log, or would answer it for too long.

Each function takes settings, training rows and how many queries will ask (None: not known), and
returns why not and what else there is, or None.
"""

from importlib.util import find_spec

from recsys.embeddings.memory import free_memory_bytes
from recsys.plain.attributes import AttributesConfig
from recsys.plain.chebyshev import WHOLE_ITEMS, ChebyshevFilterConfig
from recsys.plain.factorised import ImplicitAlsConfig
from recsys.plain.graph import GraphFilterConfig, graph_products
from recsys.plain.kind import Counted
from recsys.plain.linear import EaseConfig
from recsys.plain.markov import MarkovConfig
from recsys.plain.popularity import PopularityConfig
from recsys.plain.session_knn import SessionKNNConfig, vote_products
from recsys.retrieval.follow import follow_bytes

NO_IMPLICIT = "the package implicit is not installed (pip install 'recsys-engine[implicit]')"
NO_TIMES = "the log has no times (schema.interactions.time)"
NO_ATTRIBUTES = "the items have no categorical feature but their id (schema.features)"
# Ten minutes of a core: more would delay the training.
_MOST_GRAPH_PRODUCTS = 500_000_000_000
_MOST_VOTE_PRODUCTS = 50_000_000_000


def too_large_for_ease(config: EaseConfig, rows: Counted, _queries: int | None) -> str | None:
    """Its matrix of all pairs of items."""
    words = ease_in_words(rows)
    if rows.num_items > config.max_items:
        return (
            f"{words}; model.max_items is {config.max_items:,}: set a larger one, or model.kind: "
            "item_knn or gf_cf, which keep no such matrix"
        )
    return why_not_in_memory(4 * rows.num_items**2, words)


def ease_in_words(rows: Counted) -> str:
    """Return what an `Ease` of so many items takes."""
    count = rows.num_items
    return f"a matrix of {count:,} x {count:,} items needs {4 * count**2 / 1e9:.1f} GB"


def too_long_for_graph(
    _config: GraphFilterConfig, rows: Counted, queries: int | None
) -> str | None:
    """Its products of large catalogues."""
    return _too_long(graph_products(len(rows.item), rows.num_items, queries or 0))


def too_long_for_chebyshev(
    config: ChebyshevFilterConfig, rows: Counted, queries: int | None
) -> str | None:
    """Its products of large catalogues, for each degree of the polynomial."""
    if rows.num_items <= WHOLE_ITEMS:
        return None
    return _too_long(2 * config.order * len(rows.item) * (queries or 0))


def too_long_for_votes(config: SessionKNNConfig, rows: Counted, queries: int | None) -> str | None:
    """Its neighbours' votes."""
    products = vote_products(
        rows.sequence,
        queries or 0,
        recent=config.recent,
        neighbours=config.neighbours,
        steps=config.steps,
    )
    return _too_long(products, _MOST_VOTE_PRODUCTS)


def too_many_pairs(
    config: MarkovConfig | AttributesConfig, rows: Counted, _queries: int | None
) -> str | None:
    """Its counts of pairs."""
    return why_not_counted(len(rows.item), rows.num_items, config.steps)


def no_attributes(config: AttributesConfig, rows: Counted, queries: int | None) -> str | None:
    """Attributes that it reads, and its counts of pairs."""
    return too_many_pairs(config, rows, queries) if rows.attributes else NO_ATTRIBUTES


def no_times(config: PopularityConfig, rows: Counted, _queries: int | None) -> str | None:
    """Times that a window needs."""
    return NO_TIMES if config.window_days is not None and rows.time is None else None


def no_implicit(_config: ImplicitAlsConfig, _rows: Counted, _queries: int | None) -> str | None:
    """The library that it is fitted with."""
    return None if implicit_is_installed() else NO_IMPLICIT


def implicit_is_installed() -> bool:
    """Return whether the library is there that factorises."""
    return find_spec("implicit") is not None


def why_not_counted(num_rows: int, num_items: int, steps: int = 10) -> str | None:
    """Return why so many training rows are too many for counts of item pairs; None: they fit."""
    needed = follow_bytes(num_rows, num_items, steps)
    return why_not_in_memory(needed, f"counts of item pairs may need {needed / 1e9:.1f} GB")


def why_not_in_memory(needed: float, words: str) -> str | None:
    """Return `words` with how much memory is free, where `needed` bytes are not; else None."""
    free = free_memory_bytes()
    # A tenth more, and half a gigabyte, for what else is in memory meanwhile.
    if free is not None and 1.1 * needed + 5e8 > free:
        return f"{words}, and {free / 1e9:.1f} GB of memory are free"
    return None


def _too_long(products: float, most: float = _MOST_GRAPH_PRODUCTS) -> str | None:
    if products <= most:
        return None
    return f"its scores would take some {products:.0e} multiplications, minutes to hours"
