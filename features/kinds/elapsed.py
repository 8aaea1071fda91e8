"""How long ago the row's user (item) was last met."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.features.encoding.past import CountedRows, Integers, Past, Pasts
from recsys.features.kinds.derived import Declared
from recsys.features.kinds.past_number import PastNumber

_SECOND = 1_000_000  # microseconds


class ElapsedFeature(PastNumber):
    """Seconds since the latest earlier row of the row's user (item), on a logarithmic scale."""

    kind: Literal["elapsed"] = "elapsed"
    of: Literal["user", "item"]
    """Whose earlier rows count, or what is crossed."""
    rows: CountedRows = "all"
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
        """Refuse a log without clock times."""
        super().check(declared)
        self._check_clock(declared)

    def number(
        self, pasts: Pasts, past: Past, rows: tuple[Integers, Integers], numbers: Integers
    ) -> NDArray[np.float64]:
        """Return the seconds since the latest row."""
        if not len(past.rows):
            return np.zeros(len(numbers))
        latest = pasts.time[past.rows[np.maximum(rows[1] - 1, 0)]]
        return (pasts.time[numbers] - latest) / _SECOND
