"""How a model of lists finds items: by vectors and an index over them, or by what it counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recsys.bundle.relevance import Relevance
from recsys.data.batch import History, Jagged
from recsys.features.requests.table import Requests
from recsys.models.retrieval import RetrievalModel
from recsys.plain.answering import PlainModel
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.memory import PairMemory
from recsys.retrieval.passing import Passing
from recsys.retrieval.recommend import recommend_with_queries
from recsys.retrieval.topk import exact_topk


class Found(NamedTuple):
    """The lists of B requests.

    scores: (B, k) float32, best first. rows: of the catalogue, (B, k) int64, -1 where a list is
    short. popular: (B,) bool, which lists are by popularity alone, because the model knows nothing
    of the history; None of models that always have something to say. of_sources: of a
    pipeline the same by the name of each source that has such lists. named: (B,) int64, of how many
    candidates each list is made, k at most; None: of the whole catalogue. logits: (B, k) float64,
    how likely each item is a hit (`recsys.bundle.relevance`), of models that know it. cut: (B,)
    bool, which lists end where relevance does; None: none was to.
    """

    scores: Tensor
    rows: Tensor
    popular: NDArray[np.bool_] | None = None
    of_sources: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})
    named: NDArray[np.int64] | None = None
    logits: NDArray[np.float64] | None = None
    cut: NDArray[np.bool_] | None = None

    def until(self, threshold: float) -> Self:
        """Return the lists without the items whose logits are smaller."""
        assert self.logits is not None, "the model knows where relevance ends"
        gone = torch.from_numpy(self.logits < threshold) & (self.rows >= 0)
        return self._replace(
            scores=self.scores.masked_fill(gone, -torch.inf),
            rows=self.rows.masked_fill(gone, -1),
            cut=gone.any(1).numpy(),
        )


class Search(Protocol):
    """What finds the items of requests."""

    def __call__(
        self, requests: Requests, k: int, *, exclude: Jagged | Passing | None, exact: bool = False
    ) -> Found:
        """Return the best k items of each request.

        Args:
            requests: B of them.
            k: length of the lists, at most the size of the catalogue.
            exclude: B rows of item rows to leave out, or which items pass.
            exact: whether an approximate index is not to be used.
        """

    def similar(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return scores and rows of the k items most like each item of `rows` (N,), (N, k) each."""


@dataclass(frozen=True)
class VectorSearch:
    """See `Search`; a model that encodes requests, and what is searched.

    Attributes:
        vectors: (n, E) float32 of the catalogue.
        memory: of pairs of items, which adds to the scores.
        relevance: how likely an item of a list is a hit, by its score.
    """

    model: RetrievalModel
    index: Index
    vectors: Tensor
    memory: PairMemory | None
    relevance: Relevance | None = None

    def __call__(
        self, requests: Requests, k: int, *, exclude: Jagged | Passing | None, exact: bool = False
    ) -> Found:
        """Encode, search and add the gains."""
        scores, rows, vectors = recommend_with_queries(
            self.model,
            ExactVectors(self.vectors) if exact else self.index,
            self.vectors,
            requests.block,
            requests.history,
            k=k,
            exclude=exclude,
            memory=self.memory,
        )
        found = Found(scores, rows)
        return self.with_logits(found, vectors, items_of(requests.history).lengths())

    def with_logits(self, found: Found, vectors: Tensor, num_steps: Tensor) -> Found:
        """Return lists with how likely each item is a hit, where the model knows it.

        Args:
            found: B lists.
            vectors: of their queries, (B, E) or (B, I, E).
            num_steps: (B,) of the histories that were read.
        """
        if self.relevance is None:
            return found
        crowds = self.relevance.crowds(vectors, self.vectors)
        z = self.relevance.logits(found.scores.numpy(), crowds, num_steps.numpy())
        return found._replace(logits=z)

    def similar(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Compare the vectors by cosine; an item is the most like itself."""
        vectors = functional.normalize(self.vectors, dim=1)
        return exact_topk(vectors[rows], vectors, k)


@dataclass(frozen=True)
class PlainSearch:
    """See `Search`; a model that counts and solves, which is always exact."""

    model: PlainModel

    def __call__(
        self, requests: Requests, k: int, *, exclude: Jagged | Passing | None, exact: bool = False
    ) -> Found:
        """Score the catalogue after each history."""
        return Found(*self.model.top(items_of(requests.history), k, exclude=exclude))

    def similar(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Score the catalogue after each item alone."""
        alone = Jagged.of_lengths(rows.numpy(), np.ones(len(rows), np.int64))
        top = self.model.top(alone, k)
        return top.scores, top.rows


def items_of(history: Jagged | History) -> Jagged:
    """Return the item rows of histories."""
    return history.items if isinstance(history, History) else history
