"""A pipeline as numbers: how it joins and ranks what its sources name.

Letters: B requests, S sources, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.facts import ItemFacts
from recsys.features.pipeline.fusing import FUSIONS, Fusion, input_names, inputs_of
from recsys.features.pipeline.trees import RankingTrees
from recsys.pipeline.config import PipelineConfig
from recsys.plain.saved import arrays_of, from_bytes, model_of, to_bytes

_FUSION, _FACTS, _TREES, _NEW = "fusion.", "facts.", "trees.", "new.rows"


class Ranked(NamedTuple):
    """The candidates of B requests in order, K at most.

    scores: (B, K) float32, best first. rows: (B, K) int64, -1 where there are fewer. chosen: (B, K)
    int64, which candidate each is.
    """

    scores: Tensor
    rows: Tensor
    chosen: Tensor


@dataclass(frozen=True)
class JoinedModel:
    """What joins and ranks candidates.

    new: (R,) int64, the rows of items that are new, ascending. keeps: how many of the fused
    candidates the trees order.
    """

    fusion: Fusion
    facts: ItemFacts
    new: NDArray[np.int64]
    trees: RankingTrees | None
    keeps: int

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.facts.counts)

    def fused(self, candidates: Candidates, k: int) -> Ranked:
        """Return the best k candidates of each request as the fusion has them."""
        score = self.fusion.score(candidates, self.facts.counts)
        return Ranked(*candidates.ordered(score, k))

    def ranked(self, candidates: Candidates, history: Jagged, k: int) -> Ranked:
        """Return the best k candidates of each request, by the trees where there are any."""
        if self.trees is None:
            return self.fused(candidates, k)
        kept = candidates.take(self.fused(candidates, self.keeps).chosen)
        score = self.trees.score(self.inputs(kept, history))
        found = kept.ordered(score, k)
        return Ranked(*found)

    def inputs(self, candidates: Candidates, history: Jagged) -> NDArray[np.float64]:
        """Return what the trees read of candidates, (C, F); see `names`."""
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

    def to_bytes(self) -> bytes:
        """Return it as safetensors bytes, for `from_bytes`."""
        arrays = {f"{_FUSION}{name}": one for name, one in arrays_of(self.fusion).items()}
        arrays |= {f"{_FACTS}{name}": one for name, one in arrays_of(self.facts).items()}
        if self.trees is not None:
            arrays |= {f"{_TREES}{name}": one for name, one in arrays_of(self.trees).items()}
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
            trees=model_of(RankingTrees, arrays, _TREES) if has_trees else None,
            keeps=getattr(config.rank, "candidates", 0),
        )
