"""Popularity through attributes: what items like these are followed by, new items included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.plain.interactions import Integers
from recsys.plain.kind import PlainConfig
from recsys.retrieval.follow import Matrix, follow_counts, row_sums, scaled_rows, weighted_steps


class AttributesConfig(PlainConfig):
    """Settings of an `AttributePopularity`."""

    kind: Literal["attributes"] = "attributes"
    steps: Annotated[int, Field(ge=1)] = 10
    """How far apart a pair may be, and how many of the last items answer."""
    lag_decay: Annotated[float, Field(gt=0, le=1)] = 0.6
    """What a pair loses of its weight for each step between its items."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.65
    """What an item of the history loses of its weight for each step since."""
    shrinkage: Annotated[float, Field(gt=0)] = 20.0
    """Pairs of rows at which half of what follows a value is believed."""


@dataclass(frozen=True)
class Attribute:
    """What is known of one attribute of the items, with V values.

    items: (n_items, V) CSR, the share of each value in an item; a row sums to 1.
    share (V,) float32, of the training rows.
    follows: (V, V) CSR, what share of what followed each value has each value; a row lacks
    `left` (V,) float32 of being whole, the more the fewer rows it rests on.
    """

    items: Matrix
    share: NDArray[np.float32]
    follows: Matrix
    left: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        items: Matrix,
        rows: NDArray[np.float32],
        follow: Matrix,
        shrinkage: float,
    ) -> "Attribute":
        """Count values.

        Args:
            items: as the attribute of the class.
            rows: (V,) training rows of each value.
            follow: (n_items, n_items) how often the second followed the first.
            shrinkage: pairs of rows at which `left` is a half.
        """
        of_values = (items.T @ follow @ items).tocsr()
        of_values = scaled_rows(of_values, 1 / (row_sums(of_values) + np.float32(shrinkage)))
        share = (rows / max(1.0, float(rows.sum()))).astype(np.float32)
        return cls(items, share, of_values, 1 - row_sums(of_values))

    def log_lift(self, steps: Matrix) -> NDArray[np.float32]:
        """Return for each query and value log P(v | h) / P(v), (B, V); 0 for unknown values.

        Args:
            steps: (B, n_items) weights of a history's items, which sum to 1 or 0.
        """
        held = steps @ self.items
        unsaid = 1 - row_sums(held) + held @ self.left
        chance: NDArray[np.float32] = (held @ self.follows).toarray()
        known = self.share > 0
        lift = np.ones_like(chance)
        lift[:, known] = chance[:, known] / self.share[known] + unsaid[:, None]
        return np.log(lift)


@dataclass(frozen=True)
class AttributePopularity:
    """Items by how often items with their attribute values follow such a history.

    With P_f(v) the share of value v of attribute f in the training rows, and P_f(v | h) its share
    in what followed items with the values that the history h has, newer items and nearer pairs
    weighing more,

        score(i) = log expected(i) + sum over f of the mean over values v of i of
                   log (P_f(v | h) / P_f(v))

    Where expected(i) is the number of training rows of i, that is for a single attribute
    P(v | h) times the item's share in its value. An item without a row is expected to have as
    many as items of its values have on average (the geometric mean over the values). So new items
    are ranked like all others, by what they are.

    log_expected (n_items,) float32.
    """

    attributes: tuple[Attribute, ...]
    log_expected: NDArray[np.float32]
    steps: int
    decay: float

    @classmethod
    def fit(
        cls,
        sequence: Integers,
        item_row: Integers,
        num_items: int,
        values: Sequence[Matrix],
        *,
        steps: int = 10,
        lag_decay: float = 0.6,
        decay: float = 0.65,
        shrinkage: float = 20.0,
    ) -> "AttributePopularity":
        """Count what values follow what values.

        Args:
            sequence: (E,) the sequence of each training row, ascending.
            item_row: (E,) the items, in order within a sequence.
            num_items: size of the catalogue.
            values: an attribute each, (n_items, V) CSR of ones; at least one.
            steps: how far apart a pair may be, and how many last items answer.
            lag_decay: what a pair loses of its weight a step.
            decay: what an item of the history loses of its weight a step.
            shrinkage: pairs of rows at which half of what follows a value is believed; above 0.
        """
        counts = np.bincount(item_row, minlength=num_items).astype(np.float32)
        follow = follow_counts(sequence, item_row, num_items, steps=steps, lag_decay=lag_decay)
        return cls.of(counts, follow, values, steps=steps, decay=decay, shrinkage=shrinkage)

    @classmethod
    def of(
        cls,
        counts: NDArray[np.float32],
        follow: Matrix,
        values: Sequence[Matrix],
        *,
        steps: int,
        decay: float,
        shrinkage: float,
    ) -> "AttributePopularity":
        """Return the same of rows that were counted, by weight where they have one.

        Args:
            counts: (n_items,) training rows of each item.
            follow: (n_items, n_items) how often the second followed the first.
            values: as for `fit`, as are the others.
            steps: how many last items answer.
            decay: what an item of the history loses of its weight a step.
            shrinkage: pairs of rows at which half of what follows a value is believed; above 0.
        """
        num_items = len(counts)
        attributes = []
        log_mean = np.zeros(num_items)
        for ones in values:
            items = scaled_rows(ones, 1 / np.maximum(row_sums(ones), 1))
            rows, size = items.T @ counts, row_sums(items.T.tocsr())
            log_mean += items @ np.log((rows + 1) / (size + 1)) / len(values)
            attributes.append(Attribute.fit(items, rows, follow, shrinkage))
        expected = np.where(counts > 0, np.log(np.maximum(counts, 1)), log_mean)
        return cls(tuple(attributes), expected.astype(np.float32), steps, decay)

    def score(self, history_values: Integers, history_offsets: Integers) -> NDArray[np.float32]:
        """Return logarithms of how many rows are expected, but for a constant, (B, n_items)."""
        num_items = len(self.log_expected)
        steps = weighted_steps(
            history_values, history_offsets, num_items, most=self.steps, decay=self.decay
        )
        total = row_sums(steps)
        steps = scaled_rows(steps, 1 / np.where(total > 0, total, 1))
        scores = np.tile(self.log_expected, (len(total), 1))
        for attribute in self.attributes:
            scores += (attribute.items @ attribute.log_lift(steps).T).T
        return scores
