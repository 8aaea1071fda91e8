"""Sets of a catalogue's items by predicate, each worked out once and kept as bits."""

from collections import OrderedDict

import numpy as np

from recsys.features.filters.predicate import Columns, passing
from recsys.retrieval.passing import Bits

_KEPT_BYTES = 1 << 26


class ItemSets:
    """The items that predicates are true of, over the columns of N items."""

    def __init__(self, columns: Columns, size: int) -> None:
        """Take the columns of `size` items."""
        self.columns, self.size = columns, size
        self._kept: OrderedDict[str, Bits] = OrderedDict()

    def of(self, text: str) -> Bits:
        """Return the items that the predicate `text` is true of, ceil(N / 8) bytes of bits.

        Raises:
            FilterError: it is no predicate, or does not fit the columns.
        """
        if text not in self._kept:
            self._kept[text] = np.packbits(passing(text, self.columns, self.size))
            while len(self._kept) > 1 and len(self._kept) * (self.size / 8) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]
