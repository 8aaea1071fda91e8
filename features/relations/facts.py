"""The rows of one relation in memory, and which of them a user, an item or a pair owns.

Every row costs 8 bytes for its time, 8 for each key and 8 for each column that features read; each
timeline that they share 16 to 40 more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.features.relations.timeline import Floats, Integers, Timeline
from recsys.features.tables.condition import Condition
from recsys.features.tables.ids import Ids
from recsys.features.tables.ledger import is_text

Key = Literal["user", "item"]
By = Literal["user", "item", "pair"]
KEYS: tuple[Key, ...] = ("user", "item")
KEYS_OF: dict[By, tuple[Key, ...]] = {
    "user": ("user",),
    "item": ("item",),
    "pair": ("user", "item"),
}
"""Which keys say whose rows count."""


@dataclass(frozen=True, eq=False)
class Asked:
    """N rows that windows are asked for.

    ids: key -> the distinct ids (D,) and each row's place among them (N,). time (N,) int64
    microseconds.
    """

    ids: Mapping[Key, tuple[pa.Array, Integers]]
    time: Integers


@dataclass(frozen=True, eq=False)
class Facts:
    """R usable rows of a relation.

    ids: of each key that features need. time (R,) int64 microseconds. numbers: column -> (R,)
    float64, NaN where null. codes: column -> (R,) int64, the same for equal values, -1 where null.
    met: conditions -> (R,) which rows meet them all.
    """

    name: str
    time: Integers
    ids: Mapping[Key, Ids] = field(default_factory=dict)
    numbers: Mapping[str, Floats] = field(default_factory=dict)
    codes: Mapping[str, Integers] = field(default_factory=dict)
    met: Mapping[tuple[Condition, ...], NDArray[np.bool_]] = field(default_factory=dict)
    _timelines: dict[object, Timeline] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time)

    def timeline(
        self,
        by: By,
        where: tuple[Condition, ...] = (),
        *,
        number: str | None = None,
        code: str | None = None,
    ) -> Timeline:
        """Return the rows that meet `where`, sorted; those of one key are sorted once.

        Args:
            by: whose rows are together.
            where: conditions on their columns.
            number: column of the values; rows where it is null are left out.
            code: the same for a column whose values are only compared.
        """
        key = (by, where, number, code)
        if key not in self._timelines:
            chosen = self.met[where].copy() if where else np.ones(len(self), bool)
            value: Floats | Integers | None = None
            if number is not None:
                value = self.numbers[number]
                chosen &= ~np.isnan(value)
            elif code is not None:
                value = self.codes[code]
                chosen &= value >= 0
            self._timelines[key] = Timeline(
                self._owner(by)[chosen],
                self.time[chosen],
                None if value is None else value[chosen],
            )
        return self._timelines[key]

    def owners(self, by: By, asked: Asked) -> Integers:
        """Return the owner of each asked row, (N,); -1 where the relation has no row of it.

        Raises:
            DataError: ids are text in one table and numbers in the other.
        """
        places = []
        for key in KEYS_OF[by]:
            distinct, codes = asked.ids[key]
            places.append(self._places(key, distinct)[codes])
        return self._joined(by, places)

    def _owner(self, by: By) -> Integers:
        return self._joined(by, [self.ids[key].codes.astype(np.int64) for key in KEYS_OF[by]])

    def _joined(self, by: By, places: list[Integers]) -> Integers:
        """Return one number for the keys of each row, below 0 where one of them is."""
        owner = places[0]
        for key, place in zip(KEYS_OF[by][1:], places[1:], strict=True):
            width = len(self.ids[key].distinct)
            owner = np.where((owner < 0) | (place < 0), -1, owner * width + place)
        return owner

    def _places(self, key: Key, ids: pa.Array) -> Integers:
        own = self.ids[key]
        known = own.distinct
        if len(known) and len(ids) and is_text(known.type) != is_text(ids.type):
            raise DataError(
                f"holds {known.type} ids, and the rows that it is joined to {ids.type} ids",
                file=own.files,
                column=own.column,
                remedy="cast one of them",
            )
        if known.type != ids.type:  # whole numbers, signed and unsigned
            known, ids = known.cast(pa.string()), ids.cast(pa.string())
        return np.asarray(pc.index_in(ids, known).fill_null(-1)).astype(np.int64)
