"""One number a row: a price, a year, a rating of others."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from recsys.data.batch import FeatureLayout
from recsys.features.encoding.hashing import NULL_HASH, hash_values
from recsys.features.encoding.scaling import DEFAULT_BINS, Scaler
from recsys.features.encoding.scaling_expression import category, piecewise, scaled
from recsys.features.kinds.convert import number
from recsys.features.kinds.expression import Expressed, Operations
from recsys.features.kinds.feature import Encoded, Feature, Fit, Fitted, is_nan
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.kinds.whole_numbers import are_counts
from recsys.features.propose.profile import ColumnProfile
from recsys.features.tables.ledger import Cells
from recsys.features.tables.sources import Policies


class NumericFeature(Feature):
    """One number a row, scaled with what the training rows show; null has an indicator."""

    kind: Literal["numeric"] = "numeric"
    transform: Literal[
        "standardise", "log1p", "log_squared", "quantile", "piecewise", "discretise"
    ] = "standardise"
    """Formulas: `recsys.features.encoding.scaling`. `piecewise` makes several numbers of one,
    `discretise` a category that reads one row of the table."""
    bins: Annotated[int, Field(ge=2, le=1024)] | Literal["log_squared"] | None = None
    """How many bins, each with as many training rows, `piecewise` and `discretise` make (16 where
    not given). `log_squared`, for `discretise`: the floor of log(x)^2, as for Criteo."""

    priority: ClassVar[int] = 5
    proposal_order: ClassVar[int] = 4
    is_scaled: ClassVar[bool] = True

    @model_validator(mode="after")
    def _bins_are_used(self) -> Self:
        binned = self.transform in ("piecewise", "discretise")
        if self.bins is not None and not binned:
            raise ValueError(
                f"feature '{self.name}': bins are for transform: piecewise or discretise, not for "
                f"{self.transform}"
            )
        if self.bins == "log_squared" and self.transform == "piecewise":
            raise ValueError(
                f"feature '{self.name}': bins: log_squared is for transform: discretise; give "
                "piecewise a number of bins"
            )
        return self

    @property
    def is_flattened(self) -> bool:
        """Deviations grow with the farthest number."""
        return self.transform == "standardise"

    @property
    def lookup_names(self) -> tuple[str, ...]:
        """Its own name where bins are looked up."""
        return (self.name,) if self.transform == "discretise" else ()

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return float64."""
        return number(cells, policies)

    def fit(self, columns: Sequence[pa.ChunkedArray], reference_time: int) -> Fit:
        """Return its scale."""
        scaler = Scaler.fit(self.transform, _as_float(columns[0]), self.bins)
        return Fit(scalers={self.name: scaler})

    def layout(self, fitted: Fitted) -> FeatureLayout:
        """A category of its bins, or numbers, the last of which says whether it is null."""
        if self.transform == "discretise":
            return FeatureLayout(((self.name, 1),), (), ())
        numbers = [self.name]
        if self.transform == "piecewise":
            numbers = [f"{self.name}.{i}" for i in range(fitted.scalers[self.name].num_bins)]
        return FeatureLayout((), (), (*numbers, f"{self.name}.null"))

    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return the hash of its bin, or its numbers."""
        values, scaler = _as_float(columns[0]), fitted.scalers[self.name]
        if self.transform == "discretise":
            bins = hash_values(pa.array(scaler.category(values)))
            return Encoded(single=[np.where(np.isnan(values), NULL_HASH, bins)])
        if self.transform == "piecewise":
            return Encoded(dense=[*scaler.piecewise(values), is_nan(values)])
        return Encoded(dense=[scaler.apply(values), is_nan(values)])

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """The hash of its bin, or its numbers."""
        values, scaler = ops.number(self.source_column), fitted.scalers[self.name]
        null = ops.is_nan(values)
        if self.transform == "discretise":
            bins = ops.hashed(category(ops, scaler, values))
            return Expressed(single=[ops.where(null, int(NULL_HASH), bins)])
        numbers = piecewise if self.transform == "piecewise" else scaled
        return Expressed(dense=[numbers(ops, scaler, values), ops.float32(null)])

    def num_values(self, lookup: str, column: pa.ChunkedArray) -> int:
        """Return the number of bins."""
        return self.bins if isinstance(self.bins, int) else DEFAULT_BINS

    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """A number."""
        return {self.source_column: pa.float64()}

    @classmethod
    def propose(cls, column: ColumnProfile, look: Look) -> Suggestion | None:
        """Any number that is nothing else."""
        if column.type not in ("integer", "float"):
            return None
        if look.of_clicks and are_counts(column):
            return Suggestion("numeric", {"transform": "log1p"}, "counts with a long tail")
        finite = column.numbers[np.isfinite(column.numbers)]
        median = float(np.median(finite)) if len(finite) else 0.0
        if len(finite) and finite.min() >= 0 and finite.max() > 20 * max(median, 1e-9):
            return Suggestion("numeric", {"transform": "log1p"}, "a long tail")
        return Suggestion("numeric", {})


def _as_float(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return (N,) float64, NaN where null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
