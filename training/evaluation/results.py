"""What an evaluation found, as plain arrays: written by `evaluate`, drawn by `report`.

Shape letters: Q queries, K length of the longest list, n_items the catalogue.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.features.bundle.measured import TEST, TRACKED, VALIDATION, ChosenBy, Kept
from recsys.training.evaluation.cut_lists import CutLists

if TYPE_CHECKING:
    import pandas as pd

WITHOUT_MEMORY = "without_memory"
"""What a model without its memory of pairs is called beside it."""
WITHOUT_RANKER, WITHOUT_RULES = "fused", "without_rules"
"""What a pipeline without its ranker, or without its rules, is called beside it."""
SOURCE = "source: "
"""What the names of a pipeline's sources beside it begin with."""
STAGES = (WITHOUT_MEMORY, WITHOUT_RANKER, WITHOUT_RULES)
"""The model itself without a stage, which is nothing to compare it with."""
BEST_REACHABLE = "best_reachable"
"""What knows how users of the built-in world choose is called beside a model."""


class ModelEvaluation(Protocol):
    """Results of a model of any family on held-out rows, compared with others."""

    @property
    def protocol(self) -> Mapping[str, str]:
        """Words on how it was evaluated."""

    def tracked(self) -> dict[str, float]:
        """Return all metrics as MLflow names: the model's own, then those of each other one."""

    def figures(self) -> dict[str, Any]:
        """Return the metrics as plain numbers, as `--json` prints them."""

    def kept(self) -> Kept:
        """Return what the model's bundle keeps of it."""

    def to_frame(self) -> "pd.DataFrame":
        """Return a row a model and metric: `model`, `metric`, `value`, `low`, `high`."""


class Shown(ABC):
    """An evaluation that shows as its table, in a terminal and in a notebook."""

    @abstractmethod
    def to_frame(self) -> "pd.DataFrame":
        """Return a row a model and metric."""

    def __repr__(self) -> str:
        """Return the table as text."""
        return self.to_frame().to_string(index=False)

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))


@dataclass(frozen=True)
class RankerResult:
    """How one ranker did on the queries of an evaluation.

    Attributes:
        name: "two_tower", "popularity", "item_knn", "best_reachable".
        top: (Q, K) int32 item rows, best first, -1 where the list is short.
        per_query: "recall_at_10" -> (Q,) float64, NaN where undefined.
        metrics: means over queries, and "coverage_at_10", "novelty_at_10" of all lists. Where
            items are cold, "cold_recall_at_10", of the relevant cold items, within the
            whole catalogue; and "cold_alone_recall_at_10", where no other items are ranked.
        intervals: metric -> its 95 % bootstrap interval over queries.
        slices: "items: head", "item counts: 1-9 rows", "users: 1-4 events", "sessions: 1 step" ->
            {"recall_at_20": .., "queries": ..}.
    """

    name: str
    top: NDArray[np.int32]
    per_query: Mapping[str, NDArray[np.float64]]
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    slices: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class ColdItems:
    """The items that `split.cold_items` names, as an evaluation met them.

    Attributes:
        items: how many there are.
        queries: how many queries have a relevant one.
        trained: whether any has a training row after all.
    """

    items: int
    queries: int
    trained: bool


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """Several rankers on the same queries; the first result is the model's.

    Attributes:
        protocol: human words on the split, the filter, the queries, the catalogue.
        ks: the cut-offs, ascending.
        query_users: (Q,) int32 user rows.
        relevant_values: (T,) item rows that count as hits, those of query q at
            relevant_offsets[q]:relevant_offsets[q + 1].
        relevant_offsets: (Q + 1,) from 0 to T.
        results: ranker name -> what it did.
        train_counts: (n_items,) int64, training interactions of each item.
        representation: "rankme", "alignment", "uniformity" of the model's vectors.
        probability: quality of the probabilities, "probability_new_error" and the like.
        left_out: baselines that are missing, name -> why.
        fell_back: for how many queries a baseline had only popular items, name ->
            queries, at least one; `fallback`: by which popularity they are answered.
        asked: what a query is: "users" or "events".
        cold: the cold items, where any is relevant.
        metric: `training.metric`, which decides which epoch of the model is kept.
        part: of the log, "test", or "validation" where no row is test.
        ended: the model's lists that end where relevance does, where it was trained for that.
    """

    protocol: Mapping[str, str]
    ks: tuple[int, ...]
    query_users: NDArray[np.int32]
    relevant_values: NDArray[np.int64]
    relevant_offsets: NDArray[np.int64]
    results: Mapping[str, RankerResult]
    train_counts: NDArray[np.int64]
    representation: Mapping[str, float] = field(default_factory=dict)
    probability: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    fell_back: Mapping[str, int] = field(default_factory=dict)
    fallback: str = "popularity"
    asked: str = "users"
    cold: ColdItems | None = None
    metric: str = ""
    part: str = TEST
    ended: CutLists | None = None

    def own(self) -> dict[str, float]:
        """Return the metrics of the model itself."""
        first = next(iter(self.results.values()))
        ended = {} if self.ended is None else self.ended.metrics()
        return {**first.metrics, **self.representation, **self.probability, **ended}

    def tracked(self) -> dict[str, float]:
        """Return all metrics as MLflow names: the model's own, then those of each baseline."""
        part = TRACKED[self.part]
        found = {f"{part}/{name}": value for name, value in self.own().items()}
        for name, result in list(self.results.items())[1:]:
            found |= {f"{part}/{name}/{metric}": v for metric, v in result.metrics.items()}
        return found

    def kept(self) -> Kept:
        """Return what the model's bundle keeps: no plain model knows how users choose."""
        own, *others = self.results.values()
        not_plain = (*STAGES, BEST_REACHABLE)
        return Kept(
            test=self.own() if self.part == TEST else {},
            validation=self.own() if self.part == VALIDATION else {},
            intervals=own.intervals,
            baselines={one.name: one.metrics for one in others if one.name not in not_plain},
            decides=self.metric,
            protocol=self.protocol,
        )

    def figures(self) -> dict[str, Any]:
        """Return the metrics as plain numbers by ranker, the model's first."""
        return {name: dict(result.metrics) for name, result in self.results.items()}

    def to_frame(self) -> "pd.DataFrame":
        """Return a row a model and metric: `model`, `metric`, `value`, `low`, `high`.

        `low` and `high` are the ends of the 95 % interval over queries, NaN where there is none.
        """
        import pandas as pd

        unknown = (float("nan"), float("nan"))
        rows = [
            (name, metric, value, *result.intervals.get(metric, unknown))
            for name, result in self.results.items()
            for metric, value in result.metrics.items()
        ]
        return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high"])

    def fallback_words(self, called: Callable[[str], str] = str) -> str:
        """Return for how many queries which baselines fell back; empty where none did.

        called: how a ranker is called, by its name.
        """
        every = f"{len(self.query_users):,} {self.asked}"
        of_count: dict[int, list[str]] = {}
        for name, count in self.fell_back.items():
            of_count.setdefault(count, []).append(called(name))
        found = [f"{', '.join(of)} for {count:,} of {every}" for count, of in of_count.items()]
        words = f"used {self.fallback}, without a known history"
        return f"{words}: {'; '.join(found)}" if found else ""

    def cold_k(self, k: int) -> int:
        """Return the cut-off nearest below k that leaves some cold items out, else the least."""
        assert self.cold is not None
        return max(
            (one for one in self.ks if one <= k and one < self.cold.items), default=self.ks[0]
        )


@dataclass(frozen=True, repr=False)
class NothingHeldOut(Shown):
    """What there is to say of a model that no held-out rows tell anything of.

    Attributes:
        protocol: human words on split and rows.
        validation: metrics on validation requests, of a model that was trained on them afterwards.
        metric: `training.metric`, which decided what was chosen.
        chosen_by: the model whose training chose the settings, with its figures; None: nobody's.
    """

    protocol: Mapping[str, str]
    validation: Mapping[str, float] = field(default_factory=dict)
    metric: str = ""
    chosen_by: ChosenBy | None = None

    @property
    def words(self) -> str:
        """Say that nothing was measured, and where figures are."""
        said = "nothing was held out: there are no test figures of this model"
        if self.chosen_by is None:
            return said
        return f"{said}; its settings were chosen by {self.chosen_by.words}"

    def tracked(self) -> dict[str, float]:
        """Return what was measured on validation requests, as MLflow names."""
        return {f"{TRACKED[VALIDATION]}/{name}": one for name, one in self.validation.items()}

    def kept(self) -> Kept:
        """Return what the model's bundle keeps."""
        return Kept(
            test={},
            validation=self.validation,
            decides=self.metric,
            protocol=self.protocol,
            chosen_by=self.chosen_by,
        )

    def figures(self) -> dict[str, Any]:
        """Return no figures of the model; those of the run that chose are in its bundle."""
        return {}

    def to_frame(self) -> "pd.DataFrame":
        """Return no row, with the columns of other evaluations."""
        import pandas as pd

        return pd.DataFrame(columns=["model", "metric", "value", "low", "high"])

    def __repr__(self) -> str:
        """Return the words."""
        return self.words

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.words)}</p>"


@dataclass(frozen=True)
class Example:
    """One user of the report, by titles.

    Attributes:
        user: the user's id.
        history: earlier items of the user, newest last.
        relevant: later items of the user.
        recommended: (title, score, is it a hit), best first; a score may be NaN: not shown.
    """

    user: str
    history: Sequence[str]
    relevant: Sequence[str]
    recommended: Sequence[tuple[str, float, bool]]
