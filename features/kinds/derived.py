"""Features of a ranker that no column holds: of a row's other features, and of the rows before it.

A schema lists them among the others:

    - {name: recent, kind: history, of: movie_id, last: 20, pooling: attention}
    - {name: user_genre, kind: cross, of: [user_id, genres]}
    - {name: popularity, kind: count, of: item}
    - {name: pause, kind: elapsed, of: user}
    - {name: pair_rate, kind: rate, of: [user_id, movie_id]}
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.core.imports import on_first_use
from recsys.core.strict import StrictModel, nearest
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.data.feature_options import Multiplicity, Name
from recsys.features.encoding.label_sums import Seen
from recsys.features.encoding.past import CountedRows, Integers, Pasts
from recsys.features.encoding.scaling import Scaler

with on_first_use():
    from torch import Tensor


@dataclass(frozen=True)
class Declared:
    """What a schema has that a derived feature may be of.

    parts: name under which values of a column are looked up -> whether there are several a row.
    of_items: those of them that are of the items. has_time, has_order: whether the log has clock
    times, or an order within each user. has_label: whether it has rows that are not positive.
    """

    parts: Mapping[str, bool]
    of_items: tuple[str, ...]
    has_time: bool
    has_order: bool
    has_label: bool

    def check_part(self, feature: str, verb: str, part: str) -> None:
        """Refuse a part of a feature that is not looked up.

        Raises:
            ValueError: it is none of `parts`; the nearest right one is named.
        """
        if part not in self.parts:
            raise ValueError(
                f"feature '{feature}' {verb} '{part}', which is none of the features that are "
                f"looked up: {', '.join(self.parts)}{nearest(part, list(self.parts))}"
            )


class DerivedFeature(StrictModel):
    """A feature that is worked out from others."""

    name: Name
    """Of the feature; rows of the table follow from it."""

    if TYPE_CHECKING:
        kind: str  # each kind declares its own name

    @property
    def asked_multiplicity(self) -> Multiplicity:
        """How many rows of the table one value reads, where it is its own to say."""
        return 1

    @property
    def has_multiplicity(self) -> bool:
        """Whether a configuration can say how many rows of the table one value reads."""
        return False

    @abstractmethod
    def check(self, declared: Declared) -> None:
        """Refuse what the schema does not have.

        Raises:
            ValueError: what is wrong, and what to do.
        """

    @abstractmethod
    def layout(self, columns: FeatureLayout) -> FeatureLayout:
        """Return what it adds to `columns`, those of users, context and items."""


class RowFeature(DerivedFeature):
    """A feature of the encoded columns of its own row."""

    @abstractmethod
    def encode(self, block: FeatureBlock, columns: FeatureLayout) -> FeatureBlock:
        """Return it alone for the rows of `block` (N), which begin with `columns`."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """Names under which what it is of is looked up."""

    @abstractmethod
    def num_values(self, num_values_of: Callable[[str], int], num_rows: int) -> int:
        """Return how many values it may have: `num_values_of` each part, in `num_rows` rows."""

    @abstractmethod
    def shown(self, parts: Mapping[str, str]) -> str:
        """Return its value as people read it; `parts`: that of each feature."""


class LabelFeature(DerivedFeature):
    """Numbers of what the labels were in the training rows that hold the same values.

    Which training rows a training row's own numbers are of is `folds_of`; those of every other row
    are of all training rows.
    """

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """Names under which the values that rows share are looked up."""

    @abstractmethod
    def folds_of(self, *, has_time: bool) -> int:
        """Return how many folds training rows are parted into; 0: they see the earlier rows."""

    @abstractmethod
    def values(self, block: FeatureBlock, columns: FeatureLayout) -> Tensor:
        """Return one value, (N,) int64, of the rows of `block`, which begin with `columns`.

        Of the block its single-valued features alone are read.
        """

    @abstractmethod
    def numbers(self, seen: Seen) -> Tensor:
        """Return (N, D) float32, as `layout` has them, of what N rows share their values with."""

    @abstractmethod
    def shown(self, numbers: Sequence[float]) -> str:
        """Return the D numbers of a row as people read them."""


PastReader = Callable[[Pasts, Integers, Integers], FeatureBlock]
"""Takes the rows before, the numbers (N,) of events and their items (N,); returns N rows."""


class PastFeature(DerivedFeature):
    """A feature computed from the rows before a row's time.

    rows: which rows count, in kinds that declare it.
    """

    if TYPE_CHECKING:
        rows: CountedRows

    def check(self, declared: Declared) -> None:
        """Refuse a log without an order, and a choice of rows where all are positive."""
        if not declared.has_time and not declared.has_order:
            raise ValueError(
                f"feature '{self.name}': {self.kind} needs an order: give "
                "schema.interactions.time or schema.interactions.order"
            )
        default = type(self).model_fields["rows"].default
        if not declared.has_label and self.rows != default:
            raise ValueError(
                f"feature '{self.name}': rows: {self.rows} is about rows with a label of 0 or 1, "
                f"and a log without schema.interactions.label has positive rows alone: leave it out"
            )

    def fit(self, pasts: Pasts, numbers: Integers, items: Integers) -> Scaler | None:
        """Return its scale on the events `numbers` (N,) with `items` (N,), if it has one."""
        return None

    @abstractmethod
    def reader(
        self, items: FeatureBlock, layout: FeatureLayout, scalers: Mapping[str, Scaler]
    ) -> PastReader:
        """Return what encodes it.

        Args:
            items: the encoded catalogue, `layout` its layout.
            layout: of the items.
            scalers: name of a feature -> what `fit` returned.
        """
