"""Where relevance ends in a list: a map of scores to the chance of a hit, and one threshold.

    z = slope * score + crowd * c + activity * log(1 + n) + intercept,   chance = 1 / (1 + e^-z)
    c = log of the sum over anchors j of e^(sharpness * score of j)

with n the steps of the query's history that the model reads. Anchors are items spread evenly over
the catalogue, all of them where it is small: a softmax over the catalogue is score - c, so that c
says how much else is near the query. slope >= 0, and all else is the same for all items of a query:
its order stays, and a list that is cut is the beginning of the whole one. Without anchors the map
is of the score alone, and the threshold is one of the score.

Rossi et al., "Relevance Filtering for Embedding-based Retrieval", CIKM 2024,
https://arxiv.org/abs/2408.04887: a "cosine adapter" maps a cosine by a monotone function that
depends on the query, and what it gives has one threshold for all queries. There a network reads the
parameters of the function off the query's vector, and learns from graded labels. Here the query
counts by c and n, and the map learns from what users interacted with next: linear functions of
the vector itself cut no better but in a few cases (docs/retrieval.md).
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.number[Any]]
Floats = NDArray[np.float64]
ANCHORS = 4096
"""Items at most that are compared with a query besides those of its list."""
_AT_ONCE = 512


@dataclass(frozen=True)
class Relevance:
    """One such map with its threshold.

    slope, intercept, crowd, activity: of the map. threshold: items of a smaller z are left out.
    sharpness: logits of a softmax per unit of the score. anchors: how many; 0: the map is of the
    score alone. k: length of the lists that it was fitted on. words: what it was fitted for, and
    what it did there.
    """

    slope: float
    intercept: float
    threshold: float
    crowd: float = 0.0
    activity: float = 0.0
    sharpness: float = 1.0
    anchors: int = 0
    k: int = 0
    words: str = ""

    def logits(self, scores: Numbers, crowds: Numbers, num_steps: Numbers) -> Floats:
        """Return z of each item, (B, k).

        Args:
            scores: (B, k), of the model; -inf where a list is short.
            crowds: (B,), c of each query.
            num_steps: (B,) of the history that the model reads.
        """
        steps = np.log1p(num_steps.astype(np.float64))
        base = self.intercept + self.crowd * crowds.astype(np.float64) + self.activity * steps
        known = scores > -np.inf
        z = self.slope * np.where(known, scores, 0).astype(np.float64) + base[:, None]
        return np.where(known, z, -np.inf)

    def crowds(self, vectors: Tensor, item_vectors: Tensor) -> Floats:
        """Return c of each query, (B,); zeros where the map is of the score alone.

        Args:
            vectors: (B, E) of the queries, or (B, I, E) of several interests.
            item_vectors: (n, E) of the catalogue.
        """
        if not self.anchors:
            return np.zeros(len(vectors))
        return crowds_of(vectors, item_vectors, self.sharpness, self.anchors)

    @property
    def chance(self) -> float:
        """The smallest chance of a hit that an item of a list has."""
        return float(1 / (1 + np.exp(-self.threshold)))

    def to_json(self) -> str:
        """Return it as text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        return cls(**raw)


def crowds_of(
    vectors: Tensor, item_vectors: Tensor, sharpness: float, anchors: int = ANCHORS
) -> Floats:
    """Return c of each query, (B,); see `Relevance.crowds`."""
    rows = torch.linspace(0, len(item_vectors) - 1, min(anchors, len(item_vectors)))
    near = item_vectors[rows.round().long()].T
    parts = []
    for some in vectors.split(_AT_ONCE):
        scores = some @ near
        if scores.ndim == 3:
            scores = scores.amax(1)
        parts.append(torch.logsumexp(sharpness * scores, 1))
    return torch.cat(parts).double().numpy() if parts else np.zeros(0)
