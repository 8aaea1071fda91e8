"""How many rows of the row's user (item) came before it."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.features.encoding.past import CountedRows, Integers, Past, Pasts
from recsys.features.kinds.derived import Declared
from recsys.features.kinds.past_number import PastNumber


class CountFeature(PastNumber):
    """How many rows of the row's user (item) came before it, on a logarithmic scale."""

    kind: Literal["count"] = "count"
    of: Literal["user", "item"]
    """Whose earlier rows count, or what is crossed."""
    rows: CountedRows = "positives"
    """Which earlier rows count."""

    @property
    def owner(self) -> Literal["user", "item"]:
        """As declared."""
        return self.of

    @property
    def counted(self) -> str:
        """As declared."""
        return self.rows

    def check(self, declared: Declared) -> None:
        """Refuse a log without an order, and rows of items without clock times."""
        super().check(declared)
        if self.of == "item":
            self._check_clock(declared)

    def number(
        self, pasts: Pasts, past: Past, rows: tuple[Integers, Integers], numbers: Integers
    ) -> NDArray[np.float64]:
        """Return the number of rows."""
        return (rows[1] - rows[0]).astype(np.float64)
