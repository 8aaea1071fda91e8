"""Crosses: the values of several features of a row, combined into one value.

A cross of values v1, ..., vn is mix(... mix(mix(seed ^ v1) ^ v2) ... ^ vn), with the 64-bit mix of
`recsys.embeddings.hashing`. Whatever the others are, each part goes through a bijection, so two
values of one feature next to the same others never meet; and the order of the parts counts. Null
and the unknown id are values as any other.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Annotated, Literal

from pydantic import Field

from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import Multiplicity, Name, Pooling
from recsys.embeddings.hashing import mix
from recsys.features.kinds.derived import Declared, RowFeature
from recsys.features.kinds.sparse import settled

with on_first_use():
    import torch

SEED = 0x63726F7373656421


class CrossFeature(RowFeature):
    """The values of several features, combined into one value: a user and a genre.

    At most one of them may have several values a row; then so has the cross.
    """

    kind: Literal["cross"] = "cross"
    of: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Features with values to look up; of a timestamp, `NAME.hour` or `NAME.weekday`."""
    pooling: Pooling = "mean"
    """How the vectors of several values become one."""
    multiplicity: Multiplicity = 1
    """Rows of the table that a value reads; `auto`: by the number of its values."""

    @property
    def asked_multiplicity(self) -> Multiplicity:
        """As declared."""
        return self.multiplicity

    @property
    def has_multiplicity(self) -> bool:
        """Always."""
        return True

    @property
    def parts(self) -> tuple[str, ...]:
        """As declared."""
        return self.of

    def check(self, declared: Declared) -> None:
        """Refuse a cross of what is no value, of a feature with itself, or of two lists."""
        parts = declared.parts
        for name in self.of:
            declared.check_part(self.name, "crosses", name)
        if len(set(self.of)) < len(self.of):
            raise ValueError(f"feature '{self.name}' crosses a feature with itself")
        lists = [name for name in self.of if parts[name]]
        if len(lists) > 1:
            raise ValueError(
                f"feature '{self.name}' crosses '{lists[0]}' and '{lists[1]}', which both hold "
                "several values a row: one of them at most"
            )
        if not lists and self.pooling != "mean":
            raise ValueError(
                f"feature '{self.name}': none of {', '.join(self.of)} has several values a row, so "
                f"there is nothing to pool: leave pooling: {self.pooling} out"
            )

    def layout(self, columns: FeatureLayout) -> FeatureLayout:
        """One feature, multi-valued where a part is."""
        pair = (self.name, settled(self.multiplicity))
        if set(self.of) & {name for name, _ in columns.multi}:
            return FeatureLayout((), (pair,), (), (self.pooling,))
        return FeatureLayout((pair,), (), ())

    def encode(self, block: FeatureBlock, columns: FeatureLayout) -> FeatureBlock:
        """Return the cross of each row."""
        single = {name: place for place, (name, _) in enumerate(columns.single)}
        multi = {name: place for place, (name, _) in enumerate(columns.multi)}
        lists = [block.multi[multi[name]] for name in self.of if name in multi]
        # The lists of one value where none of the parts is a list.
        rows = lists[0] if lists else Jagged(block.single[:, 0], torch.arange(len(block) + 1))
        crossed = torch.full_like(rows.values, SEED)
        for name in self.of:
            values = rows.values if name in multi else block.single[:, single[name]]
            if lists and name not in multi:
                values = values.repeat_interleave(rows.lengths(), output_size=len(crossed))
            crossed = mix(crossed ^ values)
        found = Jagged(crossed, rows.offsets, rows.weights)
        if lists:
            return FeatureBlock(block.single[:, :0], (found,), block.dense[:, :0])
        return FeatureBlock(crossed.unsqueeze(1), (), block.dense[:, :0])

    def num_values(self, num_values_of: Callable[[str], int], num_rows: int) -> int:
        """As many values as its parts have pairs, but no more than there are rows."""
        return min(prod(num_values_of(part) for part in self.of), num_rows)

    def shown(self, parts: Mapping[str, str]) -> str:
        """Return the values of its parts."""
        return " x ".join(parts[name] for name in self.of)
