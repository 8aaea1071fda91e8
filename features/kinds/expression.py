"""What a kind of feature writes `encode` with as a graph, for runtimes that have no Python.

`Feature.express` says in symbols what `Feature.encode` does with Arrow columns. A symbol stands for
an array of rows to come; it takes Python's arithmetic, comparisons and `& | ~` with other symbols
and with numbers. What a graph needs besides is `Operations`, which an exporter implements.

Shape letters: N rows, L longest list, D numbers of a row.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Symbol = Any
"""An array of a graph."""


class ExpressedLists(NamedTuple):
    """Lists padded at their ends: values (N, L) int64, weights (N, L) float32, 0 for padding."""

    values: Symbol
    weights: Symbol


@dataclass
class Expressed:
    """As `feature.Encoded`, in symbols: single (N,) int64, dense (N,) or (N, D) float32."""

    single: list[Symbol] = field(default_factory=list)
    multi: list[ExpressedLists] = field(default_factory=list)
    dense: list[Symbol] = field(default_factory=list)


class Operations(Protocol):
    """Reads raw columns as symbols, and computes with them.

    `family` is what `encoder.FeatureEncoder.families` says of a feature's values.
    """

    def category(self, column: str, family: str) -> Symbol:
        """Return the value hashes of a column, (N,) int64, that of null where null."""

    def categories(
        self, column: str, family: str, *, cut: str = "", weights: str | None = None
    ) -> ExpressedLists:
        """Return the value hashes of a column of lists; a row without a value has that of null.

        Args:
            column: of lists, or of text where it is cut.
            family: of one value.
            cut: what separates the values of text; `WORDS`: as `text.TextFeature` parts it.
            weights: the column of their weights; None: 1 each.
        """

    def number(self, column: str) -> Symbol:
        """Return a column of numbers, (N,) float64, NaN where null or infinite."""

    def vector(self, column: str, dim: int) -> tuple[Symbol, Symbol]:
        """Return a column of vectors, (N, dim) float32, 0 where null, and where it is null."""

    def instant(self, column: str, unit: str) -> tuple[Symbol, Symbol]:
        """Return microseconds since 1970, (N,) int64, and where a column of times is null."""

    def known(self, hashes: Symbol, known: NDArray[np.int64]) -> Symbol:
        """Return hashes, of any shape, those that `known` lacks replaced by that of unknown."""

    def hashed(self, whole: Symbol) -> Symbol:
        """Return the value hashes of int64 numbers, of any shape."""

    def where(self, condition: Symbol, yes: Symbol | float, no: Symbol | float) -> Symbol:
        """Return one or the other, in the type of the one that is a symbol."""

    def count_at_most(self, values: Symbol, knots: NDArray[np.float64]) -> Symbol:
        """Return how many of `knots`, rising, are at most each value, (N,) int64."""

    def taken(self, numbers: NDArray[np.float64], at: Symbol) -> Symbol:
        """Return numbers[at], (N,) float64."""

    def columns(self, values: Symbol) -> Symbol:
        """Return (N, 1), to be compared with several numbers a row."""

    def log(self, values: Symbol) -> Symbol:
        """Return the natural logarithm."""

    def floor(self, values: Symbol) -> Symbol:
        """Return the next whole number below, as a float."""

    def clip(self, values: Symbol, low: float, high: float) -> Symbol:
        """Return values between two numbers; none of them is NaN."""

    def is_nan(self, values: Symbol) -> Symbol:
        """Return where values are NaN."""

    def float64(self, values: Symbol) -> Symbol:
        """Return whole numbers as float64."""

    def float32(self, values: Symbol) -> Symbol:
        """Return numbers or booleans as float32."""

    def int64(self, values: Symbol) -> Symbol:
        """Return numbers as int64."""


WORDS = "words"
"""`cut` of free text."""
