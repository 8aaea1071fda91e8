"""What count and elapsed share: one number of the rows before, on a logarithmic scale."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.encoding.past import Integers, Past, Pasts
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.derived import Declared, PastFeature, PastReader

with on_first_use():
    import torch


class PastNumber(PastFeature):
    """One number, null where the row's user (item) has no row before; its kinds say which."""

    @property
    @abstractmethod
    def owner(self) -> Literal["user", "item"]:
        """Whose rows."""

    @property
    @abstractmethod
    def counted(self) -> str:
        """Which rows count."""

    @abstractmethod
    def number(
        self, pasts: Pasts, past: Past, rows: tuple[Integers, Integers], numbers: Integers
    ) -> NDArray[np.float64]:
        """Return it for events, (N,).

        Args:
            pasts: of the log.
            past: of the owners.
            rows: where those before each event start and end in `past`, (N,) each.
            numbers: (N,) the events.
        """

    def _check_clock(self, declared: Declared) -> None:
        if not declared.has_time:
            raise ValueError(
                f"feature '{self.name}': {self.kind} of the {self.owner} needs clock times, as "
                "an order is one within a user: give schema.interactions.time"
            )

    def layout(self, columns: FeatureLayout) -> FeatureLayout:
        """The number, and whether it is null."""
        return FeatureLayout((), (), (self.name, f"{self.name}.null"))

    def fit(self, pasts: Pasts, numbers: Integers, items: Integers) -> Scaler:
        """Return its scale."""
        return Scaler.fit("log1p", self._values(pasts, numbers, items))

    def reader(
        self, items: FeatureBlock, layout: FeatureLayout, scalers: Mapping[str, Scaler]
    ) -> PastReader:
        """Return what scales it."""
        scaler = scalers[self.name]

        def read(pasts: Pasts, numbers: Integers, item_rows: Integers) -> FeatureBlock:
            values = self._values(pasts, numbers, item_rows)
            columns = np.stack([scaler.apply(values), np.isnan(values).astype(np.float32)], axis=1)
            none = torch.zeros(len(numbers), 0, dtype=torch.int64)
            return FeatureBlock(none, (), torch.from_numpy(columns))

        return read

    def _values(self, pasts: Pasts, numbers: Integers, items: Integers) -> NDArray[np.float64]:
        """Return the number before each event, (N,); NaN where no row is."""
        past = pasts.of(self.owner, self.counted)
        owner = pasts.owners["user"][numbers] if self.owner == "user" else items
        starts, ends = past.before(owner, pasts.instant[numbers])
        return np.where(ends > starts, self.number(pasts, past, (starts, ends), numbers), np.nan)
