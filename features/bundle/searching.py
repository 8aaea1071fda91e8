"""How a model of lists finds items: by vectors and an index over them, or by what it counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recsys.data.batch import History, Jagged
from recsys.features.requests.table import Requests
from recsys.models.retrieval import RetrievalModel
from recsys.plain.answering import PlainModel
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.memory import PairMemory
from recsys.retrieval.passing import Passing
from recsys.retrieval.recommend import recommend
from recsys.retrieval.topk import exact_topk


class Found(NamedTuple):
    """The lists of B requests.

    scores: (B, k) float32, best first. rows: of the catalogue, (B, k) int64, -1 where a list is
    short. popular: (B,) bool, which lists are by popularity alone, because the model knows nothing
    of the history; None of models that always have something to say. of_sources: of a
    pipeline the same by the name of each source that has such lists. named: (B,) int64, of how many
    candidates each list is made, k at most; None: of the whole catalogue.
    """

    scores: Tensor
    rows: Tensor
    popular: NDArray[np.bool_] | None = None
    of_sources: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})
    named: NDArray[np.int64] | None = None


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
    """

    model: RetrievalModel
    index: Index
    vectors: Tensor
    memory: PairMemory | None

    def __call__(
        self, requests: Requests, k: int, *, exclude: Jagged | Passing | None, exact: bool = False
    ) -> Found:
        """Encode, search and add the gains."""
        scores, rows = recommend(
            self.model,
            ExactVectors(self.vectors) if exact else self.index,
            self.vectors,
            requests.block,
            requests.history,
            k=k,
            exclude=exclude,
            memory=self.memory,
        )
        return Found(scores, rows)

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
