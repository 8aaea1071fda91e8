"""Which lookup of which feature reads the shared table: built once, frozen, printable."""

from dataclasses import dataclass

from recsys.batch import FeatureLayout
from recsys.embeddings.hashing import MAX_ROWS


@dataclass(frozen=True, kw_only=True)
class EmbeddingPlan:
    """One table of `num_rows` x `dim` float32 and the layouts of the sides that share it.

    A feature of multiplicity m is m x dim wide. Names are unique over all sides, since the
    name is what salts a feature.
    """

    num_rows: int
    dim: int
    layouts: tuple[FeatureLayout, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.num_rows <= MAX_ROWS:
            raise ValueError(f"num_rows must be in 1..{MAX_ROWS}, got {self.num_rows}")
        if self.dim < 1:
            raise ValueError(f"dim must be at least 1, got {self.dim}")
        names = [name for layout in self.layouts for name, _ in layout.single + layout.multi]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features must have names of their own, twice: {', '.join(twice)}")

    def width(self, side: int) -> int:
        """Return how wide the embedded row of layout number `side` is, dense columns included."""
        layout = self.layouts[side]
        return layout.num_lookups * self.dim + len(layout.dense)

    @property
    def table_bytes(self) -> int:
        """Memory of the table and of its row-wise optimizer state."""
        return self.num_rows * (self.dim + 1) * 4

    def lines(self) -> list[str]:
        """Return the plan as text: a line a feature."""
        rows = [f"table: {self.num_rows} rows x {self.dim}, {self.table_bytes / 2**20:.1f} MiB"]
        for layout in self.layouts:
            for name, multiplicity in layout.single + layout.multi:
                rows.append(f"  {name}: {multiplicity} lookup(s), width {multiplicity * self.dim}")
        return rows
