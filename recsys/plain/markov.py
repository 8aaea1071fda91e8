"""What follows what: chains of one step, and of several."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.plain.interactions import Integers, user_items
from recsys.plain.kind import PlainConfig
from recsys.plain.ordered import TIE, popularity_share
from recsys.retrieval.follow import Matrix, follow_counts, row_sums, scaled_rows, weighted_steps


class MarkovConfig(PlainConfig):
    """Settings of a `MarkovChain`."""

    kind: Literal["markov"] = "markov"
    steps: Annotated[int, Field(ge=1)] = 10
    """How far apart a pair may be, and how many of the last items answer; 1 with `power: 1` and
    `backward: 0` is the first-order chain."""
    lag_decay: Annotated[float, Field(gt=0, le=1)] = 0.6
    """What a pair loses of its weight for each step between its items."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.65
    """What an item of the history loses of its weight for each step since."""
    power: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Of the shares; below 1, what several items agree on counts more."""
    shrinkage: Annotated[float, Field(ge=0)] = 20.0
    """Added to what followed an item in all, in pairs: items with few pairs say less."""
    backward: Annotated[float, Field(ge=0)] = 0.05
    """What a pair counts in the other direction."""


@dataclass(frozen=True)
class MarkovChain:
    """Items by how often they followed the last items of the history.

    With C_ij how often j came at most `steps` after i in a training sequence, nearer pairs
    weighing more (`recsys.retrieval.follow`), and h_1, h_2, ... the history from its newest step,

        W = C + backward C^T
        P_ij = (W_ij / (sum over j of W_ij + shrinkage)) ^ power
        score(j) = sum over k = 1..steps of decay^(k - 1) P_(h_k) j

    One step and power 1 is the first-order Markov chain. With more steps it is the sequential
    rules of Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI
    2018, https://arxiv.org/abs/1803.09587, method SR, from several last items instead of one. A
    power below 1 lets what several items agree on win over a strong vote of one of them.

    transitions: (n_items, n_items) float32 CSR, P. popularity (n_items,) float32, at most 1,
    orders items that no transition distinguishes.
    """

    transitions: Matrix
    popularity: NDArray[np.float32]
    steps: int
    decay: float

    @classmethod
    def fit(
        cls,
        sequence: Integers,
        item_row: Integers,
        num_items: int,
        *,
        steps: int = 10,
        lag_decay: float = 0.6,
        decay: float = 0.65,
        power: float = 0.4,
        shrinkage: float = 20.0,
        backward: float = 0.05,
        weight: NDArray[np.float32] | None = None,
    ) -> "MarkovChain":
        """Count transitions.

        Args:
            sequence: (E,) the sequence of each training row, ascending.
            item_row: (E,) the items, in order within a sequence.
            num_items: size of the catalogue.
            weight: (E,) how much a row counts, above 0; None: 1 each.
            steps: how far apart a pair may be, and how many last items answer.
            lag_decay: what a pair loses of its weight a step.
            decay: what an item of the history loses of its weight a step.
            power: of the shares; below 1 it flattens them.
            shrinkage: added to the denominator, in transitions: items with few say less.
            backward: what a pair counts in the other direction.
        """
        counts = follow_counts(
            sequence, item_row, num_items, steps=steps, lag_decay=lag_decay, weight=weight
        )
        if backward:
            counts = (counts + np.float32(backward) * counts.T).tocsr()
        totals = row_sums(counts) + np.float32(shrinkage)
        transitions = scaled_rows(counts, 1 / np.maximum(totals, np.float32(1e-12)))
        transitions.data **= np.float32(power)
        popularity = popularity_share(user_items(sequence, item_row, num_items, weight=weight))
        return cls(transitions, popularity, steps, decay)

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return weighted shares, (B, n_items)."""
        steps = weighted_steps(
            history_values,
            history_offsets,
            len(self.popularity),
            most=self.steps,
            decay=self.decay,
        )
        scores: NDArray[np.float32] = (steps @ self.transitions).toarray()
        return scores + TIE * self.popularity
