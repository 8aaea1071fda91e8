"""A pipeline as numbers: how it joins and ranks what its sources name.

Letters: B requests, S sources, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.facts import ItemFacts
from recsys.features.pipeline.fusing import (
    FUSIONS,
    OF_A_SOURCE,
    OF_AN_ITEM,
    Fusion,
    input_names,
    inputs_of,
)
from recsys.features.pipeline.trees import RankingTrees
from recsys.features.requests.ranked import RankedRequests
from recsys.pipeline.config import PipelineConfig
from recsys.plain.saved import arrays_of, from_bytes, model_of, to_bytes

_FUSION, _FACTS, _TREES, _NEW = "fusion.", "facts.", "trees.", "new.rows"
Floats = NDArray[np.float64]


class Ranked(NamedTuple):
    """The candidates of B requests in order, K at most.

    scores: (B, K) float32, best first. rows: (B, K) int64, -1 where there are fewer. chosen: (B, K)
    int64, which candidate each is.
    """

    scores: Tensor
    rows: Tensor
    chosen: Tensor


class CandidateRanker(Protocol):
    """Orders the best of the fused candidates again."""

    def score(self, candidates: Candidates, inputs: Floats, users: RankedRequests | None) -> Floats:
        """Return scores, (C,), larger is better.

        Args:
            candidates: C of B requests.
            inputs: (C, F) what is known of them, as `JoinedModel.inputs` has it.
            users: B requests, of rankers that read features of users.
        """

    def parts(
        self,
        candidates: Candidates,
        inputs: Floats,
        users: RankedRequests | None,
        groups: Sequence[Sequence[int]],
    ) -> Floats:
        """Return what each group of columns of `inputs` adds to the scores, (C, len(groups))."""


@dataclass(frozen=True)
class JoinedModel:
    """What joins and ranks candidates.

    new: (R,) int64, the rows of items that are new, ascending. ranker: what orders the best of the
    fused candidates again. keeps: how many of them.
    """

    fusion: Fusion
    facts: ItemFacts
    new: NDArray[np.int64]
    ranker: CandidateRanker | None
    keeps: int

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.facts.counts)

    def fused(self, candidates: Candidates, k: int) -> Ranked:
        """Return the best k candidates of each request as the fusion has them."""
        score = self.fusion.score(candidates, self.facts.counts)
        return Ranked(*candidates.ordered(score, k))

    def ranked(
        self, candidates: Candidates, history: Jagged, k: int, users: RankedRequests | None = None
    ) -> Ranked:
        """Return the best k candidates of each request, by the ranker where there is one.

        users: of the B requests, as the ranker reads them, where it does.
        """
        if self.ranker is None:
            return self.fused(candidates, k)
        kept = candidates.take(self.fused(candidates, self.keeps).chosen)
        score = self.ranker.score(kept, self.inputs(kept, history), users)
        found = kept.ordered(score, k)
        return Ranked(*found)

    def inputs(self, candidates: Candidates, history: Jagged) -> Floats:
        """Return what rankers read of candidates, (C, F); see `names`."""
        counts = self.facts.counts
        return np.column_stack(
            [
                inputs_of(candidates, counts),
                candidates.score,
                self.facts.of(candidates.items, history),
            ]
        )

    def names(self, sources: Sequence[str]) -> list[str]:
        """Return what the columns of `inputs` are called."""
        more = [f"attribute {number + 1}" for number in range(len(self.facts.attributes))]
        more += [f"number {number + 1}" for number in range(self.facts.numbers.shape[1])]
        scores = [f"{source} raw score" for source in sources]
        return [*input_names(tuple(sources)), *scores, *more, "history"]

    def groups(self, sources: int) -> list[list[int]]:
        """Return the columns of `inputs` of each source, of the item, and of the history."""
        of_a_source, of_an_item = len(OF_A_SOURCE), len(OF_AN_ITEM)
        item = sources * of_a_source
        raw = item + of_an_item
        attributes = raw + sources
        numbers = attributes + len(self.facts.attributes)
        history = numbers + self.facts.numbers.shape[1]
        found = [
            [*range(one * of_a_source, (one + 1) * of_a_source), raw + one]
            for one in range(sources)
        ]
        found.append([*range(item, raw), *range(numbers, history)])
        return [*found, [*range(attributes, numbers), history]]

    def to_bytes(self) -> bytes:
        """Return it as safetensors bytes, for `from_bytes`; without a ranker that is a bundle."""
        arrays = {f"{_FUSION}{name}": one for name, one in arrays_of(self.fusion).items()}
        arrays |= {f"{_FACTS}{name}": one for name, one in arrays_of(self.facts).items()}
        if isinstance(self.ranker, RankingTrees):
            arrays |= {f"{_TREES}{name}": one for name, one in arrays_of(self.ranker).items()}
        return to_bytes({**arrays, _NEW: self.new})

    @classmethod
    def from_bytes(cls, config: PipelineConfig, data: bytes) -> "JoinedModel":
        """Return what `to_bytes` wrote of a pipeline of these settings.

        Raises:
            IntegrityError: it is of another pipeline.
        """
        arrays = from_bytes(data)
        fusion: Any = model_of(FUSIONS[config.fuse.kind][0], arrays, _FUSION)
        has_trees = any(name.startswith(_TREES) for name in arrays)
        return cls(
            fusion=fusion,
            facts=model_of(ItemFacts, arrays, _FACTS),
            new=arrays[_NEW],
            ranker=model_of(RankingTrees, arrays, _TREES) if has_trees else None,
            keeps=getattr(config.rank, "candidates", 0),
        )
