"""Features of a row's own columns (crosses), worked out from encoded rows.

crosses = Crosses(schema.derived_features, encoder.columns_layout())
rows = crosses.beside(block)   # the same rows, with their crosses behind them
"""

from collections.abc import Sequence

from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.kinds.derived import DerivedFeature, RowFeature

with on_first_use():
    import torch


class Crosses:
    """Works out the features of rows among `features` from blocks of one layout.

    layout: of these alone, those with one value a row first.
    """

    def __init__(self, features: Sequence[DerivedFeature], columns: FeatureLayout) -> None:
        """Get ready for blocks that begin with the columns of `columns`."""
        self.columns = columns
        self._features = [feature for feature in features if isinstance(feature, RowFeature)]
        layouts = (feature.layout(columns) for feature in self._features)
        self.layout = sum(layouts, start=FeatureLayout((), (), ()))

    def beside(self, block: FeatureBlock) -> FeatureBlock:
        """Return the rows of `block` with their crosses behind their columns."""
        return block.beside(*self._crossed(block))

    def again(self, block: FeatureBlock) -> FeatureBlock:
        """Return a block that begins as `beside` made it, with the crosses of what it holds now."""
        crossed = self._crossed(block)
        if not crossed:
            return block
        new = crossed[0].beside(*crossed[1:])
        single, multi = len(self.columns.single), len(self.columns.multi)
        after = block.single[:, single + len(self.layout.single) :]
        return FeatureBlock(
            torch.cat([block.single[:, :single], new.single, after], dim=1),
            block.multi[:multi] + new.multi + block.multi[multi + len(self.layout.multi) :],
            block.dense,
        )

    def _crossed(self, block: FeatureBlock) -> list[FeatureBlock]:
        """Return the crosses alone."""
        return [feature.encode(block, self.columns) for feature in self._features]
