"""Unified embedding: every feature of every side reads rows of one shared table.

Coleman et al., "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML
Systems", NeurIPS 2023, https://arxiv.org/abs/2305.12102, section 3. A feature t of
multiplicity m_t reads the rows h(value, salt[t, 0..m_t-1]) and concatenates them.

All lookups of a batch are one stream of bags through one kernel call, so the table takes one
optimizer step a batch, whatever the number of features, sides and groups. A history pooled by
attention or activation is read a value a bag, and weighed by what its candidate reads in the same
call; the weights of activation are the embedding's only ones beside the table.

Shape letters: N rows of a side, F single-valued features, S lookups of a side, M lookups of a
feature, T values of a multi-valued feature.

    embedding = UnifiedEmbedding(plan, build_table(config, device=cpu, seed=0))
    items, queries = embedding([item_block, query_block])   # (N_items, W), (N_queries, W')
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import BY_CANDIDATE, HistoryPooling
from recsys.embeddings.hashing import salts_of, table_rows
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import Table
from recsys.layers.pooling import ActivationPooling, attended


class UnifiedEmbedding(nn.Module):
    """Embeds the feature blocks of several sides from one table."""

    def __init__(self, plan: EmbeddingPlan, table: Table) -> None:
        super().__init__()
        want, got = (plan.total_rows, plan.dim), (table.num_rows, table.weight.shape[1])
        if want != got:
            raise ValueError(f"plan wants a {want[0]} x {want[1]} table, got {got}")
        self.plan = plan
        self.table = table
        for number, layout in enumerate(plan.layouts):
            for kind, tensor in _lookups(plan, layout).items():
                self.register_buffer(f"{kind}_{number}", tensor, persistent=False)
        self.activations = nn.ModuleDict(
            {
                _key(name): ActivationPooling(multiplicity * plan.dim)
                for layout in plan.layouts
                for (name, multiplicity), pooling in zip(layout.multi, layout.poolings, strict=True)
                if pooling == "activation"
            }
        )

    def forward(self, blocks: Sequence[FeatureBlock]) -> list[Tensor]:
        """Return one (N, width) float32 a side: lookups in declared order, then dense columns.

        `blocks` holds one block a layout of the plan, in its order.
        """
        if len(blocks) != len(self.plan.layouts):
            raise ValueError(f"plan has {len(self.plan.layouts)} sides, got {len(blocks)} blocks")
        return self._embed(list(enumerate(blocks)))

    def side(self, number: int, block: FeatureBlock) -> Tensor:
        """Return (N, width) float32 of one side alone."""
        return self._embed([(number, block)])[0]

    def _embed(self, numbered: list[tuple[int, FeatureBlock]]) -> list[Tensor]:
        stream = BagStream()
        for number, block in numbered:
            layout = self.plan.layouts[number]
            check_block(number, layout, block)
            stream.add_single(self.single_rows(number, block.single))
            for (name, _), jagged, pooling in zip(
                layout.multi, block.multi, layout.poolings, strict=True
            ):
                rows_TM = self.plan.rows_of(name, jagged.values)
                if pooling in BY_CANDIDATE:
                    stream.add_single(rows_TM)
                else:
                    stream.add_multi(rows_TM, jagged, pooling)
        pieces = iter(stream.pooled_by(self.table))
        embedded = []
        for number, block in numbered:
            parts = [next(pieces) for _ in range(1 + len(block.multi))]
            self._attend(self.plan.layouts[number], block, parts)
            if block.dense.shape[1]:
                parts.append(block.dense)
            parts = [part for part in parts if part.shape[1]] or parts[:1]
            embedded.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        return embedded

    def _attend(self, layout: FeatureLayout, block: FeatureBlock, parts: list[Tensor]) -> None:
        """Pool, in place, the parts that were read a value a bag by what their source reads."""
        for place, (name, _) in enumerate(layout.multi):
            if layout.poolings[place] in BY_CANDIDATE:
                query = self._read_by(layout, parts, layout.source_of(name))
                pooled = activation_in(self.activations, name) or attended
                parts[1 + place] = pooled(query, parts[1 + place], block.multi[place])

    def _read_by(self, layout: FeatureLayout, parts: list[Tensor], feature: str) -> Tensor:
        """Return what `feature` has read, (N, multiplicity * dim)."""
        end = 0
        for name, multiplicity in layout.single:
            end += multiplicity * self.plan.dim
            if name == feature:
                return parts[0][:, end - multiplicity * self.plan.dim : end]
        return parts[1 + [name for name, _ in layout.multi].index(feature)]

    def single_rows(self, number: int, values_NF: Tensor) -> Tensor:
        """Return which row each lookup of the single-valued features reads, (N, S) int64."""
        columns, salts = self.get_buffer(f"columns_{number}"), self.get_buffer(f"salts_{number}")
        if len(columns) != values_NF.shape[1]:  # else one lookup a feature, in their order
            values_NF = values_NF[:, columns]
        if not self.plan.groups:
            return table_rows(values_NF, salts, self.plan.num_rows)
        first, count = self.get_buffer(f"first_{number}"), self.get_buffer(f"count_{number}")
        return table_rows(values_NF, salts, count) + first


def _key(feature: str) -> str:
    """Return a name for a module: none of a `ModuleDict`'s own, and without a dot."""
    return f"of_{feature.replace('.', '_')}"


def activation_in(activations: nn.ModuleDict, feature: str) -> ActivationPooling | None:
    """Return how the values of `feature` are weighed, where its pooling is `activation`."""
    if _key(feature) not in activations:
        return None
    found = activations[_key(feature)]
    assert isinstance(found, ActivationPooling)
    return found


class BagStream:
    """Bags of all features, one after the other, through one call of a table."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []

    def add_single(self, rows_NS: Tensor) -> None:
        """Add N x S bags of one row each."""
        self._segments.append(_Segment(rows_NS.reshape(-1), *rows_NS.shape))

    def add_multi(self, rows_TM: Tensor, jagged: Jagged, pooling: HistoryPooling) -> None:
        """Add M lookups of one multi-valued feature: M x N bags, a value's row in each."""
        rows = rows_TM.T.reshape(-1)
        num_lookups = rows_TM.shape[1]
        self._segments.append(_Segment(rows, len(jagged), num_lookups, jagged, pooling))

    def pooled_by(self, table: Table) -> list[Tensor]:
        """Return one (N, lookups * dim) a segment, in the order they were added."""
        segments = self._segments
        rows = _cat([segment.rows for segment in segments])
        pooled = table(rows, self._offsets(rows), self._weights())
        sizes = [segment.num_rows * segment.num_lookups for segment in segments]
        parts = [pooled] if len(sizes) == 1 else pooled.split(sizes)
        return [segment.shaped(part) for segment, part in zip(segments, parts, strict=True)]

    def _offsets(self, rows: Tensor) -> Tensor:
        if all(segment.jagged is None for segment in self._segments):
            return torch.arange(len(rows) + 1, device=rows.device)
        lengths = torch.cat([segment.lengths() for segment in self._segments])
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=rows.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        return offsets

    def _weights(self) -> Tensor | None:
        if all(s.jagged is None or s.jagged.weights is None for s in self._segments):
            return None
        return torch.cat([segment.weights() for segment in self._segments])


class _Segment:
    """The bags of some lookups: how many, of what lengths, and how to shape what comes out."""

    def __init__(
        self,
        rows: Tensor,
        num_rows: int,
        num_lookups: int,
        jagged: Jagged | None = None,
        pooling: HistoryPooling = "sum",
    ) -> None:
        self.rows, self.num_rows, self.num_lookups = rows, num_rows, num_lookups
        self.jagged, self.pooling = jagged, pooling

    def lengths(self) -> Tensor:
        if self.jagged is None:
            return torch.ones_like(self.rows)
        return self.jagged.lengths().repeat(self.num_lookups)

    def weights(self) -> Tensor:
        if self.jagged is None or self.jagged.weights is None:
            return torch.ones(len(self.rows), device=self.rows.device)
        return self.jagged.weights.repeat(self.num_lookups)

    def shaped(self, pooled: Tensor) -> Tensor:
        """Return (N, lookups * dim) of this segment's bags (N * lookups, dim)."""
        width = self.num_lookups * pooled.shape[1]
        if self.jagged is None:
            return pooled.view(self.num_rows, width)
        by_lookup = pooled.view(self.num_lookups, self.num_rows, pooled.shape[1])
        if self.pooling != "sum":
            by_lookup = by_lookup / _divisor(self.jagged, self.pooling).view(1, -1, 1)
        return by_lookup.transpose(0, 1).reshape(self.num_rows, width)


def _divisor(jagged: Jagged, pooling: HistoryPooling) -> Tensor:
    """What sums are divided by, (N,) float32; 1 where a row is empty or weighs nothing."""
    lengths = jagged.lengths()
    if jagged.weights is None:
        total = lengths.float()
    else:
        weights = jagged.weights if pooling == "mean" else jagged.weights.square()
        rows = torch.repeat_interleave(
            torch.arange(len(lengths), device=lengths.device), lengths, output_size=len(weights)
        )
        total = torch.zeros(len(lengths), device=weights.device).index_add_(0, rows, weights)
    total = total.sqrt() if pooling == "sqrtn" else total
    return torch.where(total > 0, total, 1.0)


def _lookups(plan: EmbeddingPlan, layout: FeatureLayout) -> dict[str, Tensor]:
    """What each lookup of the single-valued features reads: column, salt, range of rows."""
    names = [(column, *pair) for column, pair in enumerate(layout.single)]
    ranges = [plan.range_of(name) for _, name, multiplicity in names for _ in range(multiplicity)]
    none = torch.zeros(0, dtype=torch.int64)
    return {
        "columns": torch.tensor([c for c, _, m in names for _ in range(m)], dtype=torch.int64),
        "salts": torch.cat([none, *(salts_of(name, m) for _, name, m in names)]),
        "first": torch.tensor([first for first, _ in ranges], dtype=torch.int64),
        "count": torch.tensor([count for _, count in ranges], dtype=torch.int64),
    }


def check_block(number: int, layout: FeatureLayout, block: FeatureBlock) -> None:
    """Refuse a block that is not as its layout says.

    Raises:
        ValueError: the numbers of columns differ.
    """
    got = (block.single.shape[1], len(block.multi), block.dense.shape[1])
    want = (len(layout.single), len(layout.multi), len(layout.dense))
    if got != want:
        raise ValueError(
            f"side {number} wants (single, multi, dense) features {want}, the block has {got}"
        )


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
