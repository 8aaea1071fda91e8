"""Sets of items by predicate are worked out once, and not too many are kept."""

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.filters import sets
from recsys.features.filters.sets import ItemSets


class Reads:
    """A column that counts how often it is read."""

    place, remedy, names = "the shop", "", ("n",)

    def __init__(self) -> None:
        self.count = 0

    def column(self, name: str) -> pa.Array:
        self.count += 1
        return pa.array(range(20))


def test_a_predicate_is_worked_out_once() -> None:
    columns = Reads()
    items = ItemSets(columns, 20)
    for _ in range(3):
        assert np.flatnonzero(np.unpackbits(items.of("n < 3"), count=20)).tolist() == [0, 1, 2]
    assert columns.count == 1


def test_the_oldest_are_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = Reads()
    items = ItemSets(columns, 20)
    monkeypatch.setattr(sets, "_KEPT_BYTES", 6)  # two sets of 20 bits
    for text in ("n < 1", "n < 2", "n < 1", "n < 3", "n < 1"):
        items.of(text)
    assert columns.count == 3
    items.of("n < 2")
    assert columns.count == 4
    monkeypatch.setattr(sets, "_KEPT_BYTES", 0)
    assert np.unpackbits(items.of("n < 5"), count=20).sum() == 5
