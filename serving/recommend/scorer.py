"""The scorer: a verified bundle that answers requests with recommendations.

One code path for batch scoring, the MLflow model and the Python API.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.bundle.pair_calibration import InteractionProbability
from recsys.core.errors import ConfigError
from recsys.data.batch import Jagged
from recsys.features.bundle.lists import ListModel
from recsys.features.bundle.searching import Found
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import Requests
from recsys.retrieval.passing import Passing
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.reasons import RELEVANCE, reasons_of
from recsys.serving.recommend.searched import searched_in_words
from recsys.serving.recommend.seen import seen_in_words

POPULAR = b"lists_by_popularity"
"""Of the answers' metadata: how many lists are by popularity alone, of models that fall back."""
OF_SOURCES = b"sources_by_popularity"
"""Likewise, of a pipeline: in how many lists each source that falls back did, as JSON."""
LISTED = b"listed_items"
"""Likewise, of models that know where relevance ends: how many items all lists hold."""
_UNNAMED = RequestOrigin()


@dataclass(frozen=True)
class Scorer(ListModel):
    """Answers request tables (`recsys.features.requests.table`) from one bundle.

    Attributes:
        k: longest list by default.
        filter_seen: whether lists leave out items the user interacted with.
        probability: whether a list has the probability of each item.
        cut: whether lists end where relevance does.
        exact: whether all vectors are searched, and not the bundle's index.
    """

    k: int
    filter_seen: bool
    probability: bool
    cut: bool
    exact: bool = False

    @classmethod
    def open(
        cls,
        path: Path,
        k: int | None = None,
        filter_seen: bool | None = None,
        probability: bool = False,
        cut: bool | None = None,
        exact: bool = False,
    ) -> Self:
        """Verify and read the bundle at `path`, and replay its probe.

        Args:
            path: of a retrieval model's bundle.
            k: longest list, where `score` is given no other; None: as the model says.
            filter_seen: leave out items a user interacted with; None: as when the model was
                evaluated.
            probability: add that of an interaction with each item.
            cut: end lists where relevance does; None: where the model knows that.
            exact: search all vectors and not the bundle's index.

        Raises:
            NotFoundError, IntegrityError: as `ListModel.open`.
            ConfigError: probabilities are wanted of a model trained without calibration, lists are
                to end where a model does not know it, or the model gives no lists.
        """
        if k is not None:
            _checked_k(k)
        model = ListModel.open(path)
        evaluated = model.description.filter_seen
        scorer = cls(
            **vars(model),
            k=model.description.k if k is None else k,
            filter_seen=evaluated if filter_seen is None else filter_seen,
            probability=probability,
            cut=model.relevance is not None if cut is None else cut,
            exact=exact,
        )
        if probability:
            scorer.calibrated()
        if cut:
            scorer.threshold()
        return scorer

    @property
    def seen_items(self) -> str:
        """A description of what is done with items the user interacted with, and why."""
        return seen_in_words(self.filter_seen, self.description.filter_seen)

    @property
    def searched(self) -> str:
        """A description of how items are found."""
        return searched_in_words(self, approximate=not self.exact)

    def job(self) -> dict[str, Any]:
        """Return what a job with this scorer is told from another by, for JSON."""
        found = {
            "model_id": self.bundle.model_id,
            "k": self.k,
            "filter_seen": self.filter_seen,
            "policies": self.policies.model_dump(mode="json"),
            **{name: True for name in ("probability", "cut") if getattr(self, name)},
        }
        return found if self.exact else found | {"search": self.searched}

    def encode(self, requests: pa.Table, origin: RequestOrigin = _UNNAMED) -> Requests:
        """Return `requests` as tensors; see `ListModel.encode`.

        Raises:
            ConfigError: the ranker of a pipeline has windows that requests cannot bring.
        """
        search = self.found_by
        for feature in search.need_relations if isinstance(search, PipelineSearch) else ():
            raise ConfigError(
                f"the pipeline's ranker reads '{feature.name}' of '{feature.relation}' for each "
                "candidate, which requests cannot bring: score the users of a log (recsys score "
                f"--interactions LOG --other {feature.relation}=PATH)"
            )
        return super().encode(requests, origin)

    def score(
        self,
        requests: pa.Table,
        k: int | None = None,
        filter_seen: bool | None = None,
        probability: bool | None = None,
        origin: RequestOrigin = _UNNAMED,
        filters: Filters | None = None,
        cut: bool | None = None,
    ) -> pa.Table:
        """Return one row a request: user key, items, scores, reason (null unless short).

        Lists hold at most k items, best first, and fewer where fewer are left: never padding,
        never an item that the user has seen (unless `filter_seen` is off). Of a model that was
        trained with `relevance` they end where relevance does, unless `cut` is off. With
        `probability` there is a column `probabilities`: of an interaction with each item of the
        list. `filters` say what may be in the lists, besides the filters that requests have
        themselves.

        Raises:
            ConfigError: probabilities are wanted of a model trained without calibration, or `cut`
                of one trained without relevance.
            DataError: the requests do not fit the model; `origin` is named.
        """
        encoded = self.encode(requests, origin)
        passing = (filters or Filters.of(self)).of_requests(requests, origin)[0]
        return self.answer(encoded, k, filter_seen, probability, passing, cut)

    def answer(
        self,
        requests: Requests,
        k: int | None = None,
        filter_seen: bool | None = None,
        probability: bool | None = None,
        passing: Passing | None = None,
        cut: bool | None = None,
    ) -> pa.Table:
        """Return what `score` returns, for requests that are encoded already."""
        wanted = _checked_k(self.k if k is None else k)
        without_seen = self.filter_seen if filter_seen is None else filter_seen
        found = self.search(
            requests, wanted, filter_seen=without_seen, exact=self.exact, passing=passing
        )
        found = self.ended(found, cut)
        seen = requests.seen if without_seen else None
        lists = self.lists(requests, found, wanted, probability, passing, seen)
        facts: dict[bytes, str] = {}
        if found.popular is not None:
            facts[POPULAR] = str(int(found.popular.sum()))
        if found.of_sources:
            counts = {name: int(one.sum()) for name, one in found.of_sources.items()}
            facts[OF_SOURCES] = json.dumps(counts)
        if found.cut is not None:
            facts[LISTED] = str(int((found.rows >= 0).sum()))
        return lists.replace_schema_metadata(facts or None)

    def lists(
        self,
        requests: Requests,
        found: Found,
        k: int,
        probability: bool | None = None,
        passing: Passing | None = None,
        seen: Jagged | None = None,
    ) -> pa.Table:
        """Return what `score` returns, of what was found for B requests.

        Args:
            requests: B of them.
            found: their lists, in rows of the catalogue.
            k: what they were asked to be at most.
            probability: as for `score`.
            passing: what was let pass; None: everything.
            seen: B rows of item rows that were left out; None: nothing.

        Raises:
            ConfigError: probabilities are wanted of a model trained without calibration.
        """
        there = found.rows >= 0
        lengths = there.sum(1).numpy()
        bounds = pa.array(np.concatenate([[0], np.cumsum(lengths)]))

        def lists(values: pa.Array) -> pa.Array:
            return pa.LargeListArray.from_arrays(bounds, values)

        columns = {
            self.schema.user_key: requests.user_ids,
            "items": lists(self.item_ids.take(pa.array(found.rows[there].numpy()))),
            "scores": lists(pa.array(found.scores[there].numpy())),
        }
        if self.probability if probability is None else probability:
            columns["probabilities"] = lists(self._probabilities(requests, found))
        size = len(self.item_ids)
        reasons = reasons_of(lengths, k, size, passing, seen, found.named)
        if found.cut is not None:
            reasons = np.where(found.cut, RELEVANCE, reasons)
        why = pa.array(reasons, pa.string())
        return pa.table({**columns, "reason": pc.if_else(pc.equal(why, ""), None, why)})

    def ended(self, found: Found, cut: bool | None = None) -> Found:
        """Return lists that end where relevance does; `cut` None: as the scorer was opened.

        Raises:
            ConfigError: the model was trained without relevance.
        """
        return found.until(self.threshold()) if (self.cut if cut is None else cut) else found

    def threshold(self) -> float:
        """Return the smallest logit of an item that is relevant enough to be in a list.

        Raises:
            ConfigError: the model was trained without relevance.
        """
        if self.relevance is None:
            raise ConfigError(
                f"{self.bundle.path}: this model ({self.description.kind}) does not know where "
                "relevance ends in a list: a two-tower or a session model does that was trained "
                "with relevance: {keep_recall: 0.95}"
            )
        return self.relevance.threshold

    def calibrated(self) -> InteractionProbability:
        """Return what turns scores into probabilities.

        Raises:
            ConfigError: the model was trained without calibration.
        """
        if self.calibration is None:
            raise ConfigError(
                f"{self.bundle.path}: this model ({self.description.kind}) gives no probabilities: "
                "a two-tower does that was trained with calibration: logistic (or isotonic)"
            )
        return self.calibration

    def _probabilities(self, requests: Requests, found: Found) -> pa.Array:
        """Return one probability for each item found, list after list."""
        there = found.rows >= 0
        events = requests.num_events.unsqueeze(1).expand_as(found.rows)[there].numpy()
        scores, is_new = found.scores[there].numpy(), self.is_new[found.rows[there].numpy()]
        return pa.array(self.calibrated().probability(scores, events, is_new))


def _checked_k(k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise ConfigError(f"k must be a whole number, got {k!r}")
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    return int(k)
