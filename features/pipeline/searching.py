"""A pipeline asked: every source names candidates, which become one list."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.searching import Found, PlainSearch, Search, items_of
from recsys.features.kinds.relation_feature import RelationFeature
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.model import JoinedModel, Ranked
from recsys.features.pipeline.row_ranker import RowRanker
from recsys.features.pipeline.rules import Rules
from recsys.features.relations.asking import AskedRelations
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import Requests
from recsys.retrieval.passing import Passing


class SourceModel(Protocol):
    """A model that gives lists, out of its bundle."""

    @property
    def description(self) -> ModelDescription:
        """What it is."""

    @property
    def found_by(self) -> Search:
        """How it finds items."""

    def encode(self, requests: pa.Table, origin: RequestOrigin) -> Requests:
        """Return requests as tensors."""


RULED = 300
"""Candidates of a request that rules see, at least: a limit leaves many of them out."""


@dataclass(frozen=True)
class PipelineSearch:
    """See `recsys.features.bundle.searching.Search`.

    Attributes:
        names: what the S sources are called.
        sources: their models, of the catalogue of the pipeline.
        takes: how many candidates each names at most.
        only_new: whether a source names new items alone.
        joined: what makes one list of them.
        rules: what the lists keep to.
    """

    names: tuple[str, ...]
    sources: tuple[SourceModel, ...]
    takes: tuple[int, ...]
    only_new: tuple[bool, ...]
    joined: JoinedModel
    rules: Rules | None = None

    def __call__(
        self, requests: Requests, k: int, *, exclude: Jagged | Passing | None, exact: bool = False
    ) -> Found:
        """Return the best k items of each request."""
        lists, candidates = self.candidates(requests, exclude=exclude, exact=exact)
        ranked = self.ranked(requests, candidates, k if self.rules is None else max(k, RULED))
        scores, rows = self.ruled(candidates, ranked, k, exclude)
        named = (ranked.rows >= 0).sum(1).clamp(max=k).numpy()
        of_sources = {
            name: one.popular
            for name, one, only_new in zip(self.names, lists, self.only_new, strict=True)
            if one.popular is not None and not only_new
        }
        known = [one for one, only_new in zip(lists, self.only_new, strict=True) if not only_new]
        return Found(scores, rows, _popular(known), of_sources, named)

    def ruled(
        self, candidates: Candidates, ranked: Ranked, k: int, exclude: Jagged | Passing | None
    ) -> tuple[Tensor, Tensor]:
        """Return the best k of ranked candidates by the rules: scores and rows, (B, k) each."""
        if self.rules is None:
            return ranked.scores, ranked.rows
        eligible = _eligible(exclude, len(ranked.rows), self.joined.num_items)
        named = {
            name: candidates.named_by(number, self.takes[number])
            for number, name in enumerate(self.names)
            if name in self.rules.reads
        }
        rows, scores = self.rules.apply(
            ranked.rows.numpy(), ranked.scores.numpy(), k, eligible, named
        )
        return torch.from_numpy(scores), torch.from_numpy(rows)

    def reading(self, requests: Requests, table: pa.Table, origin: RequestOrigin) -> Requests:
        """Return the requests of `table` with what each source, and the ranker, reads of them."""
        own = tuple(
            requests if _reads_whole_histories(source.description) else source.encode(table, origin)
            for source in self.sources
        )
        ranker = self.joined.ranker
        users = ranker.users(table, origin) if isinstance(ranker, RowRanker) else None
        return replace(requests, of_sources=own, for_ranker=users)

    def with_relations(self, relations: AskedRelations | None) -> "PipelineSearch":
        """Return the same with what the windows of its ranker are computed of at hand, or not."""
        ranker = self.joined.ranker
        if not isinstance(ranker, RowRanker):
            return self
        joined = replace(self.joined, ranker=ranker.with_relations(relations))
        return replace(self, joined=joined)

    @property
    def need_relations(self) -> tuple[RelationFeature, ...]:
        """Windows of its ranker that requests cannot bring, where no relation is at hand."""
        ranker = self.joined.ranker
        return ranker.windows.need_relations if isinstance(ranker, RowRanker) else ()

    def candidates(
        self, requests: Requests, *, exclude: Jagged | Passing | None, exact: bool = False
    ) -> tuple[list[Found], Candidates]:
        """Return what each source names, and all of it joined."""
        lists = [self.named(number, requests, exclude, exact) for number in range(len(self.names))]
        pairs = [(one.scores, one.rows) for one in lists]
        return lists, Candidates.of(pairs, self.joined.num_items, self.takes)

    def named(
        self, number: int, requests: Requests, exclude: Jagged | Passing | None, exact: bool = False
    ) -> Found:
        """Return what one source names."""
        search, own = self.sources[number].found_by, requests.of_sources[number]
        take = min(self.takes[number], self.joined.num_items)
        if not self.only_new[number]:
            return search(own, take, exclude=exclude, exact=exact)
        assert isinstance(search, PlainSearch)
        history = items_of(own.history)
        return Found(*search.model.top(history, take, exclude=exclude, among=self.joined.new))

    def ranked(self, requests: Requests, candidates: Candidates, k: int) -> Ranked:
        """Return the candidates in order, k at most."""
        history = items_of(requests.history)
        return self.joined.ranked(candidates, history, k, requests.for_ranker)

    def similar(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return what the first source says."""
        return self.sources[0].found_by.similar(rows, k)


def _reads_whole_histories(source: ModelDescription) -> bool:
    """Whether a source reads of requests what the pipeline does: the items, and nothing more."""
    return source.sessions is None and not source.reads_features


def _eligible(
    exclude: Jagged | Passing | None, count: int, num_items: int
) -> NDArray[np.bool_] | None:
    """Return which items each request may be answered with, (B, n_items); None: all."""
    if isinstance(exclude, Passing):
        return exclude.masks()
    if exclude is None:
        return None
    found = np.ones((count, num_items), bool)
    found[exclude.owners().numpy(), exclude.values.numpy()] = False
    return found


def _popular(lists: Sequence[Found]) -> NDArray[np.bool_] | None:
    """Return which lists are by popularity in all sources; None: one always knows something."""
    known = [one.popular for one in lists if one.popular is not None]
    return reduce(np.logical_and, known) if known and len(known) == len(lists) else None
