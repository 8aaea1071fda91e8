"""Crosses: the values of several features of a row, taken together as one value.

A cross of values v1, ..., vn is mix(... mix(mix(seed ^ v1) ^ v2) ... ^ vn), with the 64-bit mix of
`recsys.embeddings.hashing`. Whatever the others are, each part goes through a bijection, so two
values of one feature beside the same others never meet; and the order of the parts counts. Null and
the unknown id are values as any other.

    crosses = Crosses(schema.derived_features, encoder.columns_layout())
    rows = crosses.beside(block)   # the same rows, their crosses behind them
"""

from collections.abc import Sequence

import torch

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import HistoryPooling
from recsys.embeddings.hashing import mix
from recsys.features.kinds.derived import CrossFeature, DerivedFeature

_SEED = 0x63726F7373656421


class Crosses:
    """Works out the crosses among `features` from blocks of one layout.

    layout: of the crosses alone, those with one value a row first.
    """

    def __init__(self, features: Sequence[DerivedFeature], columns: FeatureLayout) -> None:
        """Get ready for blocks that begin with the columns of `columns`."""
        self.columns = columns
        single = {name: place for place, (name, _) in enumerate(columns.single)}
        multi = {name: place for place, (name, _) in enumerate(columns.multi)}
        crosses = [feature for feature in features if isinstance(feature, CrossFeature)]
        parts = [[(name in multi, (single | multi)[name]) for name in x.of] for x in crosses]
        is_multi = [any(is_list for is_list, _ in one) for one in parts]
        self._single = [one for one, several in zip(parts, is_multi, strict=True) if not several]
        self._multi = [one for one, several in zip(parts, is_multi, strict=True) if several]
        named = [(x.name, x.multiplicity if x.multiplicity != "auto" else 1) for x in crosses]
        pooling: list[HistoryPooling] = [
            x.pooling for x, several in zip(crosses, is_multi, strict=True) if several
        ]
        self.layout = FeatureLayout(
            tuple(pair for pair, several in zip(named, is_multi, strict=True) if not several),
            tuple(pair for pair, several in zip(named, is_multi, strict=True) if several),
            (),
            tuple(pooling),
        )

    def beside(self, block: FeatureBlock) -> FeatureBlock:
        """Return the rows of `block` with their crosses behind their columns."""
        return block if not self.layout.features else block.beside(self._crossed(block))

    def again(self, block: FeatureBlock) -> FeatureBlock:
        """Return a block that begins as `beside` made it with the crosses of what it holds now."""
        if not self.layout.features:
            return block
        single, multi = len(self.columns.single), len(self.columns.multi)
        new = self._crossed(block)
        after = block.single[:, single + len(self._single) :]
        return FeatureBlock(
            torch.cat([block.single[:, :single], new.single, after], dim=1),
            block.multi[:multi] + new.multi + block.multi[multi + len(self._multi) :],
            block.dense,
        )

    def _crossed(self, block: FeatureBlock) -> FeatureBlock:
        """Return the crosses alone."""
        single = [_cross(block, parts).values for parts in self._single]
        return FeatureBlock(
            torch.stack(single, dim=1) if single else block.single[:, :0],
            tuple(_cross(block, parts) for parts in self._multi),
            block.dense[:, :0],
        )


def _cross(block: FeatureBlock, parts: Sequence[tuple[bool, int]]) -> Jagged:
    """Return the cross of columns: (whether it is multi-valued, its place), one list at most.

    The lists of one value where none of them is.
    """
    lists = [block.multi[place] for is_list, place in parts if is_list]
    rows = lists[0] if lists else Jagged(block.single[:, 0], torch.arange(len(block) + 1))
    crossed = torch.full_like(rows.values, _SEED)
    for is_list, place in parts:
        values = rows.values if is_list else block.single[:, place]
        if lists and not is_list:
            values = values.repeat_interleave(rows.lengths(), output_size=len(crossed))
        crossed = mix(crossed ^ values)
    return Jagged(crossed, rows.offsets, rows.weights)
