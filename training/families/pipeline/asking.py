"""A pipeline, its sources and its stages as rankers of an evaluation, asked as they are served."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.features.bundle.searching import items_of
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.filters.predicate import passing as items_that_pass
from recsys.features.kinds.relation_feature import RelationFeature
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.model import JoinedModel
from recsys.features.pipeline.requests import whole_requests
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.relations.asking import AskedRelations
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.ranked import ASKED_AT
from recsys.features.requests.table import Requests, encode_requests
from recsys.features.schema import Schema
from recsys.retrieval.passing import Passing
from recsys.training.families.opened import rows_of
from recsys.training.families.pipeline.config import PipelineExperiment

AT_ONCE = 2048
"""Requests that are answered together."""
_UNNAMED = RequestOrigin()
Lists = tuple[Tensor, Tensor]
"""Scores (B, k) and item rows (B, k), -1 where a list is short."""


@dataclass(frozen=True)
class Catalogue:
    """The items of a trained pipeline, where they are not those of the data.

    ids: (n_items,), ascending. places: (n_items,) the row of each in the data, -1: not there.
    """

    ids: pa.Array
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Asking:
    """Asks sources about the users of queries, with the history that was known then.

    known: (E,) which events were. passes: (n_items,) what the pipeline's filter lets through; None:
    it has none. time: (num_users,) when each is asked, in microseconds. catalogue: the n_items of
    the pipeline; None: those of the data.
    """

    config: PipelineExperiment
    data: Dataset
    known: NDArray[np.bool_]
    passes: NDArray[np.bool_] | None
    time: NDArray[np.int64]
    catalogue: Catalogue | None = None

    @classmethod
    def before(cls, config: PipelineExperiment, data: Dataset, part: int) -> "Asking":
        """Return what asks about a part of the log.

        Raises:
            FilterError: the pipeline's filter does not fit the items.
        """
        passes = _passing(config, data, data.tables.items)
        return cls(config, data, data.part < part, passes, asked_at(data, part))

    @classmethod
    def over(
        cls, config: PipelineExperiment, data: Dataset, part: int, items: pa.Table
    ) -> "Asking":
        """Return what asks a trained pipeline about a part of a log over another catalogue.

        Of histories it reads the items that it knows, and it names those that the data have.

        Args:
            config: of the pipeline.
            data: of the log.
            part: that is asked about.
            items: the catalogue of the pipeline.

        Raises:
            FilterError: the pipeline's filter does not fit the items.
        """
        key = data.schema.item_key
        ids, known = (one.column(key).combine_chunks() for one in (items, data.tables.items))
        catalogue = Catalogue(ids, rows_of(ids, known))
        passes, there = _passing(config, data, items), catalogue.places >= 0
        passes = there if passes is None else passes & there
        return cls(config, data, data.part < part, passes, asked_at(data, part), catalogue)

    @property
    def item_ids(self) -> pa.Array:
        """The items that may be named, (n_items,)."""
        if self.catalogue is not None:
            return self.catalogue.ids
        return self.data.tables.items.column(self.data.schema.item_key).combine_chunks()

    def requests(
        self, users: NDArray[np.int64], search: PipelineSearch
    ) -> Iterator[tuple[slice, Requests]]:
        """Yield places of users, and their requests as the pipeline and its parts read them."""
        for start in range(0, len(users), AT_ONCE):
            place = slice(start, min(start + AT_ONCE, len(users)))
            yield place, self.one_table(users[place], search)[1]

    def one_table(
        self, users: NDArray[np.int64], search: PipelineSearch
    ) -> tuple[pa.Table, Requests]:
        """Return the requests of some users as a table, and encoded."""
        data, config = self.data, self.config
        table = whole_requests(without_windows(data.schema), data.tables, self.known, users)
        if data.schema.relation_features:
            table = table.append_column(ASKED_AT, pa.array(self.time[users]))
        found = encode_requests(
            data.encoder,
            self.item_ids,
            table,
            history_length=config.model.history_length,
            policies=config.policies,
        )
        return table, search.reading(found, table, _UNNAMED)

    def as_served(
        self,
        users: NDArray[np.int64],
        search: PipelineSearch,
        relations: AskedRelations | None,
    ) -> tuple[pa.Table, Requests]:
        """Return the same as who asks a served model would send it: with windows by user."""
        table, requests = self.one_table(users, search)
        if relations is None:
            return table, requests
        table = relations.beside(table, self.time[users]).drop_columns([ASKED_AT])
        return table, search.reading(requests, table, _UNNAMED)

    def excluded(
        self, requests: Requests, among: NDArray[np.int64] | None = None
    ) -> Jagged | Passing | None:
        """Return what requests leave out: what was seen, and what does not pass."""
        seen = requests.seen if self.config.evaluation.filter_seen else None
        if self.passes is None and among is None:
            return seen
        passes = np.ones(len(self.item_ids), bool) if self.passes is None else self.passes
        if among is not None:
            only = np.zeros(self.data.num_items, bool)
            only[among] = True
            if self.catalogue is not None:  # what is not in the data does not pass anyway
                only = only[self.catalogue.places]
            passes = passes & only
        one_set = np.zeros(len(requests), np.int64)
        return Passing.of(passes[None], one_set).hiding(seen)


def asked_at(data: Dataset, part: int) -> NDArray[np.int64]:
    """Return when each user is asked about a part, (num_users,) microseconds.

    At their first row of it that is asked for; others just after all rows before the part.
    """
    events, rows = data.tables.events, data.targets_of((part,))
    before = events.time[data.part < part]
    found = np.full(data.num_users, np.iinfo(np.int64).max)
    np.minimum.at(found, events.user_row[rows], events.time[rows])
    return np.where(found < np.iinfo(np.int64).max, found, int(before.max(initial=0)) + 1)


def without_windows(schema: Schema) -> Schema:
    """Return the schema without windows: steps of a history have none."""
    kept = tuple(one for one in schema.features if not isinstance(one, RelationFeature))
    return schema.model_copy(update={"features": kept, "relations": {}})


def _passing(
    config: PipelineExperiment, data: Dataset, items: pa.Table
) -> NDArray[np.bool_] | None:
    """Return which items pass the pipeline's filter; None: it has none."""
    if config.model.filter is None:
        return None
    columns = CatalogueColumns(data.schema, lambda: items)
    return items_that_pass(config.model.filter, columns, items.num_rows)


Answer = Callable[[PipelineSearch, Requests, Jagged | Passing | None, int], Lists]


@dataclass(frozen=True)
class StageRanker:
    """A `recsys.training.evaluation.evaluate.Ranker` by some stage of a pipeline."""

    asking: Asking
    search: PipelineSearch
    answer: Answer

    def __call__(
        self, queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return the best k item rows of each query, (Q, k), -1 where the list is short."""
        top = np.full((len(queries), k), -1, np.int32)
        for place, requests in self.asking.requests(queries.users, self.search):
            rows = self.answer(self.search, requests, self.asking.excluded(requests, among), k)[1]
            top[place, : rows.shape[1]] = rows.numpy()
        catalogue = self.asking.catalogue
        if catalogue is None:
            return top
        return np.where(top >= 0, catalogue.places[top], -1).astype(np.int32)


def whole(
    search: PipelineSearch, requests: Requests, exclude: Jagged | Passing | None, k: int
) -> Lists:
    """Answer as the pipeline does."""
    found = search(requests, k, exclude=exclude)
    return found.scores, found.rows


def fused(
    search: PipelineSearch, requests: Requests, exclude: Jagged | Passing | None, k: int
) -> Lists:
    """Answer with the joined candidates, before they are ranked."""
    _, candidates = search.candidates(requests, exclude=exclude)
    found = search.joined.fused(candidates, k)
    return found.scores, found.rows


def one_source(number: int) -> Answer:
    """Return what answers as one source does, which names `take` items at most."""

    def answer(
        search: PipelineSearch, requests: Requests, exclude: Jagged | Passing | None, k: int
    ) -> Lists:
        found = search.named(number, requests, exclude)
        return found.scores[:, :k], found.rows[:, :k]

    return answer


@dataclass(frozen=True)
class Labelled:
    """Candidates of queries of which it is known which were right; hit: (C,) 0 or 1.

    history: B rows of item rows. users: (B,) rows of the users.
    """

    candidates: Candidates
    history: Jagged
    hit: NDArray[np.float64]
    users: NDArray[np.int64]

    def of(self, requests: NDArray[np.bool_]) -> "Labelled":
        """Return the candidates of some requests, (B,) bool."""
        owner = self.candidates.items.owners().numpy()
        numbers = np.flatnonzero(requests[owner])
        few = self.candidates.only(numbers)
        rows = torch.from_numpy(np.flatnonzero(requests))
        candidates = replace(few, items=few.items.take(rows))
        return Labelled(candidates, self.history.take(rows), self.hit[numbers], self.users[rows])

    def best(self, joined: JoinedModel, k: int) -> "Labelled":
        """Return the best k candidates of each request as the fusion has them."""
        chosen = joined.fused(self.candidates, k).chosen
        numbers = np.sort(chosen[chosen >= 0].numpy())
        return replace(self, candidates=self.candidates.only(numbers), hit=self.hit[numbers])


def candidates_with_hits(asking: Asking, search: PipelineSearch, queries: Queries) -> Labelled:
    """Return the candidates of all queries, and which of them were right."""
    parts, histories = [], []
    for _, requests in asking.requests(queries.users, search):
        found = search.candidates(requests, exclude=asking.excluded(requests))[1]
        parts.append(found)
        histories.append(items_of(requests.history))
    candidates = _together(parts)
    history = histories[0]
    for more in histories[1:]:
        history = history.above(more)
    size = asking.data.num_items
    right = queries.relevant.owners().numpy() * size + queries.relevant.values.numpy()
    asked = candidates.items.owners().numpy() * size + candidates.items.values.numpy()
    hit = np.zeros(len(asked))
    hit[np.searchsorted(asked, right[_found(asked, right)])] = 1.0
    return Labelled(candidates, history, hit, queries.users)


def _found(asked: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of `right` are among `asked`, which is ascending."""
    place = np.searchsorted(asked, right).clip(max=max(len(asked) - 1, 0))
    return asked[place] == right if len(asked) else np.zeros(len(right), bool)


def _together(parts: list[Candidates]) -> Candidates:
    items = parts[0].items
    for one in parts[1:]:
        items = items.above(one.items)
    return Candidates(
        items,
        np.concatenate([one.rank for one in parts]),
        np.concatenate([one.score for one in parts]),
        np.concatenate([one.position for one in parts]),
        parts[0].takes,
    )


def reached(labelled: Labelled, queries: Queries) -> tuple[NDArray[np.float64], float]:
    """Return the share of the relevant items that each source names, and all of them name."""
    total = max(len(queries.relevant.values), 1)
    hit = labelled.hit > 0
    return labelled.candidates.named[hit].sum(0) / total, float(hit.sum()) / total
