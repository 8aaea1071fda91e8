"""Which model to train first on a log, and why: rules over its counts, from measured results.

The figures are those of the documentation (benchmarks.md, pipeline.md, retrieval.md); they are of
other data, and the first training says whether they hold.
"""

from collections.abc import Callable
from dataclasses import dataclass

from recsys.features.propose.part_facts import PartFacts

FEW_AN_ITEM = 1.2
SMALL_LOG = 250_000
SMALL_CATALOGUE = 20_000
_LONG_VISITS = 5.0


@dataclass(frozen=True)
class Suggestion:
    """A model to train first, a value of `model.kind`, and why."""

    model: str
    why: str

    @property
    def line(self) -> str:
        """The suggestion as text."""
        return f"to train first: {self.model}: {self.why}"


@dataclass(frozen=True)
class LogFacts:
    """What the rules look at.

    labelled: whether rows have a label. timed: whether they have a time or an order. described:
    item features other than the id. new_users: share of the users of the last part without a
    training row. length: median rows of a user or session.
    """

    rows: int
    items: int
    labelled: bool
    timed: bool
    described: int
    new_users: float
    length: float

    @property
    def rows_an_item(self) -> float:
        """Rows for each item of the catalogue."""
        return self.rows / max(self.items, 1)


@dataclass(frozen=True)
class _Rule:
    """A suggestion, and the logs that it is for."""

    holds: Callable[[LogFacts], bool]
    model: str
    why: str


_RULES = (
    _Rule(
        lambda log: log.labelled and log.new_users > 0.5,
        "logistic",
        "most users of the last part are new: networks gain little there (MovieLens-1M, "
        "new users: AUC 0.8096 against 0.7960); then compare dcn",
    ),
    _Rule(
        lambda log: log.labelled,
        "dcn",
        "on labelled rows of known users it led, with the perceptron (MovieLens-1M: AUC 0.9097, fm "
        "0.8996, logistic 0.8717); LightGBM beside it (evaluation.rankers) costs little",
    ),
    _Rule(
        lambda log: log.rows_an_item < FEW_AN_ITEM,
        "popularity",
        "about a row an item or less: hard to beat (3 % of the rows of Amazon Sports: recall@20 "
        "0.0156, a two-tower 0.0096)",
    ),
    _Rule(
        lambda log: log.rows < SMALL_LOG and log.items <= SMALL_CATALOGUE,
        "ease",
        "fewer than 250,000 rows: fitted in seconds, and hard to beat (a shop of 229,000 events: "
        "NDCG@10 0.163, a two-tower 0.115; two of 110,000, purchases asked for: 0.146 and 0.187, a "
        "two-tower that learns from all rows 0.178 and 0.206)",
    ),
    _Rule(
        lambda log: log.timed and log.length >= _LONG_VISITS,
        "session",
        "rows in order, several a user: the transformer led there (MovieLens-1M, leave one out: "
        "NDCG@10 0.197, markov 0.174, item_knn 0.032); markov is the plain model to beat",
    ),
    _Rule(
        lambda log: log.described == 0,
        "gf_cf",
        "ids alone: a two-tower gains little over it (Gowalla: recall@20 0.1886 against 0.1849)",
    ),
    _Rule(
        lambda log: True,
        "two_tower",
        "many rows and described items: it reads the features, and serves new items (MovieLens-1M: "
        "recall@20 0.357, item_knn 0.099)",
    ),
)
"""The first that holds is the suggestion."""


def suggestion(log: LogFacts) -> Suggestion:
    """Return the model to train first."""
    rule = next(one for one in _RULES if one.holds(log))
    return Suggestion(rule.model, rule.why)


def new_users(parts: tuple[PartFacts, ...]) -> float:
    """Return the share of the last part's rows whose user has no training row."""
    last = next((one for one in reversed(parts) if one.rows), parts[0])
    return last.cold_user_rows / max(last.rows, 1)
