"""A number of a window of a relation's rows before a row: orders of the user in the last 30 days.

Of rows at time t, the window [t - w, t) of a relation holds what happened before t alone, so
neither the row itself nor anything that happens with it is in it (Robinson et al., "Relational
Deep Learning", 2023, https://arxiv.org/abs/2312.04615, section 2.2: rows are as of a seed time).

    count      rows                                       0 where none is
    sum        of their values                            0 where none is
    mean       of their values                            null where none is
    last       value of the latest                        null where none is
    distinct   different values                           0 where none is
    since      seconds from the latest to the row         null where none is
    share      rows that meet `where` among all of them   null where none is

A null value is left out: it is not summed, counted in a mean, the last, or distinct.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from recsys.data.batch import FeatureLayout
from recsys.data.feature_options import Name
from recsys.features.encoding.scaling import Scaler
from recsys.features.encoding.scaling_expression import scaled
from recsys.features.kinds.convert import number as as_number
from recsys.features.kinds.expression import Expressed, Operations
from recsys.features.kinds.feature import Encoded, Fit, Fitted, is_nan
from recsys.features.kinds.relation_feature import RelationFeature
from recsys.features.relations.facts import Asked, By, Facts
from recsys.features.relations.spans import Span, microseconds_of
from recsys.features.relations.timeline import Integers, Timeline, Windows
from recsys.features.tables.condition import Condition
from recsys.features.tables.ledger import Cells
from recsys.features.tables.sources import Policies


class _Found(NamedTuple):
    """N windows on a timeline, the times of their rows, and how many rows they hold in all."""

    line: Timeline
    windows: Windows
    time: Integers
    rows: Callable[[], Integers]


class _Take(NamedTuple):
    """What is taken of windows, (N,), and what it reads: a column as numbers, or only compared."""

    of: Callable[[_Found], NDArray[Any]]
    reads_numbers: bool = False
    reads_codes: bool = False
    needs_conditions: bool = False


_TAKES = {
    "count": _Take(lambda found: found.windows.sizes),
    "sum": _Take(lambda found: found.line.sums(found.windows), reads_numbers=True),
    "mean": _Take(
        lambda found: _ratio(found.line.sums(found.windows), found.windows.sizes),
        reads_numbers=True,
    ),
    "last": _Take(lambda found: found.line.last(found.windows), reads_numbers=True),
    "distinct": _Take(lambda found: found.line.distinct(found.windows), reads_codes=True),
    "since": _Take(lambda found: found.line.since(found.windows, found.time)),
    "share": _Take(lambda found: _ratio(found.windows.sizes, found.rows()), needs_conditions=True),
}


class WindowFeature(RelationFeature):
    """A number of the rows of a relation in a window that ends just before the row."""

    kind: Literal["window"] = "window"
    table: Literal["interactions"] = "interactions"
    """It is a column of the rows of the log."""
    of: Name
    """A relation, or `interactions`: the log itself."""
    by: By
    """Whose rows count: those of the row's `user`, of its `item`, or of both together (`pair`)."""
    take: Literal["count", "sum", "mean", "last", "distinct", "since", "share"] = "count"
    """What is taken of the rows of the window."""
    value: str = ""
    """Column of the relation, for sum, mean, last (numbers) and distinct (any)."""
    window: Span | None = None
    """Length: 30m, 12h, 7d, 4w; null: all rows before."""
    where: tuple[Condition, ...] = ()
    """Only rows that meet these count; of a share, those that are its numerator."""
    transform: Literal["log1p", "standardise", "quantile"] = "log1p"
    """How the number is scaled, as for kind: numeric."""

    priority: ClassVar[int] = 5
    is_scaled: ClassVar[bool] = True

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.column:
            raise ValueError(
                f"feature '{self.name}' is computed, and its column has its name: leave column out"
            )
        take = _TAKES[self.take]
        reads = take.reads_numbers or take.reads_codes
        if reads and not self.value:
            raise ValueError(
                f"feature '{self.name}': take: {self.take} is of the values of a column of "
                f"'{self.of}': name it with value"
            )
        if self.value and not reads:
            raise ValueError(
                f"feature '{self.name}': take: {self.take} reads no value: leave value out"
            )
        if take.needs_conditions and not self.where:
            raise ValueError(
                f"feature '{self.name}': a share is that of the rows which meet where: give it"
            )
        return self

    @property
    def relation(self) -> str:
        """As declared."""
        return self.of

    @property
    def owner(self) -> By:
        """As declared."""
        return self.by

    @property
    def numbers_of(self) -> str | None:
        """The value where it is a number."""
        return self.value if _TAKES[self.take].reads_numbers else None

    @property
    def codes_of(self) -> str | None:
        """The value where it is only compared."""
        return self.value if _TAKES[self.take].reads_codes else None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """As declared."""
        return self.where

    @property
    def scaled_by(self) -> str:
        """As declared."""
        return self.transform

    def number(self, facts: Facts, asked: Asked) -> NDArray[np.float64]:
        """Return it for N rows."""
        owner, time = facts.owners(self.by, asked), asked.time
        span = None if self.window is None else microseconds_of(self.window)
        line = facts.timeline(self.by, self.where, number=self.numbers_of, code=self.codes_of)

        def rows() -> Integers:
            return facts.timeline(self.by).windows(owner, time, span).sizes

        found = _Found(line, line.windows(owner, time, span), time, rows)
        return _TAKES[self.take].of(found).astype(np.float64)

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return float64."""
        return as_number(cells, policies)

    def fit(self, columns: Sequence[pa.ChunkedArray], reference_time: int) -> Fit:
        """Return its scale."""
        return Fit(scalers={self.name: Scaler.fit(self.transform, _as_float(columns[0]))})

    def layout(self, fitted: Fitted) -> FeatureLayout:
        """The number, and whether it is null."""
        return FeatureLayout((), (), (self.name, f"{self.name}.null"))

    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return both."""
        values = _as_float(columns[0])
        return Encoded(dense=[fitted.scalers[self.name].apply(values), is_nan(values)])

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """Both, of a column of numbers."""
        values = ops.number(self.source_column)
        null = ops.float32(ops.is_nan(values))
        return Expressed(dense=[scaled(ops, fitted.scalers[self.name], values), null])

    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """A number."""
        return {self.source_column: pa.float64()}


def _ratio(part: NDArray[Any], whole: Integers) -> NDArray[np.float64]:
    """Return (N,); NaN where `whole` is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _as_float(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return (N,) float64, NaN where null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
