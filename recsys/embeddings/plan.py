"""Which lookup of which feature reads which rows of the table: built once, frozen, printable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Self

from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureLayout
from recsys.data.feature_options import BY_CANDIDATE
from recsys.embeddings.hashing import MAX_ROWS, salts_of, table_rows
from recsys.embeddings.table import TableConfig

with on_first_use():
    from torch import Tensor

MAX_AUTO = 8
"""Most lookups that `allocate` gives one feature."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Features that share `num_rows` rows of their own, not shared with others."""

    name: str
    num_rows: int
    features: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EmbeddingPlan:
    """One table of `total_rows` x `dim` float32 and the layouts of the sides that share it.

    The first `num_rows` rows are shared by every feature that is in no group; the ranges of the
    groups follow in their order. A feature of multiplicity m is m x dim wide. Names are unique
    over all sides, since the name is what salts a feature; one that reads the rows of another
    (`FeatureLayout.reads`) has the salts, the range and the multiplicity of that one.
    """

    num_rows: int
    dim: int
    layouts: tuple[FeatureLayout, ...]
    groups: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
        if self.num_rows < 1 or self.total_rows > MAX_ROWS:
            raise ValueError(f"num_rows must be in 1..{MAX_ROWS}, got {self.total_rows}")
        if self.dim < 1:
            raise ValueError(f"dim must be at least 1, got {self.dim}")
        names = [name for name, _ in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features must have names of their own, twice: {', '.join(twice)}")
        grouped = [name for group in self.groups for name in group.features]
        for name in grouped:
            if name not in names:
                raise ValueError(f"a group holds '{name}', which is no sparse feature")
            if grouped.count(name) > 1:
                raise ValueError(f"feature '{name}' is in two groups")
            if self.source_of(name) != name:
                raise ValueError(
                    f"a group holds '{name}', which reads the rows of '{self.source_of(name)}': "
                    "name that one"
                )
        for layout in self.layouts:
            _check_reads(layout)

    @classmethod
    def of(cls, config: TableConfig, layouts: tuple[FeatureLayout, ...]) -> Self:
        """Return the plan of a configured table.

        Raises:
            ValueError: a group names no feature of the layouts, or one of another group.
        """
        groups = tuple(
            Group(name=name, num_rows=group.num_rows, features=group.features)
            for name, group in config.groups.items()
        )
        return cls(num_rows=config.num_rows, dim=config.dim, layouts=layouts, groups=groups)

    @property
    def features(self) -> tuple[tuple[str, int], ...]:
        """All sparse features of all sides with their multiplicities."""
        return tuple(pair for layout in self.layouts for pair in layout.features)

    @property
    def total_rows(self) -> int:
        """Rows of the whole table."""
        return self.num_rows + sum(group.num_rows for group in self.groups)

    def source_of(self, feature: str) -> str:
        """Return the feature whose rows the values of `feature` read."""
        return dict(pair for layout in self.layouts for pair in layout.reads).get(feature, feature)

    def range_of(self, feature: str) -> tuple[int, int]:
        """Return the first row that `feature` may read, and how many there are from it on."""
        first, source = self.num_rows, self.source_of(feature)
        for group in self.groups:
            if source in group.features:
                return first, group.num_rows
            first += group.num_rows
        return 0, self.num_rows

    def rows_of(self, feature: str, values: Tensor) -> Tensor:
        """Return the rows that the hashes `values` (V,) of `feature` read, (V, m) int64."""
        first, num_rows = self.range_of(feature)
        multiplicity = dict(self.features)[feature]
        salts = salts_of(self.source_of(feature), multiplicity).to(values.device)
        return table_rows(values.unsqueeze(1), salts, num_rows) + first

    def width(self, side: int) -> int:
        """Return how wide the embedded row of layout number `side` is, dense columns included."""
        layout = self.layouts[side]
        return layout.num_lookups * self.dim + len(layout.dense)

    @property
    def table_bytes(self) -> int:
        """Memory of the table itself; the optimizer's state comes on top."""
        return self.total_rows * self.dim * 4

    def lines(self) -> list[str]:
        """Return the plan as text: a line a feature."""
        size = f"{self.total_rows:,} rows x {self.dim}, {self.table_bytes / 2**20:.1f} MiB"
        rows = [f"table: {size}"]
        for name, multiplicity in self.features:
            first, num_rows = self.range_of(name)
            where = f", rows {first:,}..{first + num_rows - 1:,}" if self.groups else ""
            if self.source_of(name) != name:
                where += f", the rows of {self.source_of(name)}"
            rows.append(
                f"  {name}: {multiplicity} lookup(s), width {multiplicity * self.dim}{where}"
            )
        return rows


def _check_reads(layout: FeatureLayout) -> None:
    multiplicities, multi = dict(layout.features), dict(layout.multi)
    for name, source in layout.reads:
        if name not in multi or source not in multiplicities or layout.source_of(source) != source:
            raise ValueError(f"'{name}' cannot read the rows of '{source}' in this layout")
        if multi[name] != multiplicities[source]:
            raise ValueError(
                f"'{name}' reads {multi[name]} rows a value, its source '{source}' "
                f"{multiplicities[source]}"
            )
    for (name, _), pooling in zip(layout.multi, layout.poolings, strict=True):
        if pooling in BY_CANDIDATE and layout.source_of(name) == name:
            raise ValueError(f"'{name}' is pooled by {pooling}, but reads no other feature's rows")


def allocate(cardinalities: Mapping[str, int], lookups: int) -> dict[str, int]:
    """Share `lookups` table reads out among features by how many values they distinguish.

    A feature of V values carries at most log2 V bits; each further lookup goes to the feature
    with the most bits for each lookup that it has, one at least and `MAX_AUTO` at most each.
    The sum is below `lookups` where every feature is at its limit, above it where there are
    more features than lookups.

    Args:
        cardinalities: feature -> number of distinct values.
        lookups: the budget: table reads for one row of all these features.
    """
    bits = {name: log2(max(count, 1)) for name, count in cardinalities.items()}
    found = dict.fromkeys(cardinalities, 1)
    for _ in range(lookups - len(found)):
        # A feature of two values has nothing to gain: one row distinguishes both.
        open_ = [name for name in found if found[name] < min(MAX_AUTO, bits[name])]
        if not open_:
            break
        neediest = max(open_, key=lambda name: (bits[name] / found[name], name))
        found[neediest] += 1
    return found
