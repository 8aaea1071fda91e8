"""Unified embedding: every feature of every side reads rows of one shared table.

Coleman et al., "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML
Systems", NeurIPS 2023, https://arxiv.org/abs/2305.12102, section 3. A feature t of
multiplicity m_t reads the rows h(value, salt[t, 0..m_t-1]) and concatenates them.

All lookups of a batch are one stream of bags through one kernel call, so the table takes one
optimizer step a batch, whatever the number of features and sides.

Shape letters: N rows of a side, F single-valued features, S lookups of a side, D dense columns.

    embedding = UnifiedEmbedding(plan, build_table(config, device=cpu, seed=0))
    items, queries = embedding([item_block, query_block])   # (N_items, W), (N_queries, W')
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.hashing import salts_of, table_rows
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import Table


class UnifiedEmbedding(nn.Module):
    """Embeds the feature blocks of several sides from one table."""

    def __init__(self, plan: EmbeddingPlan, table: Table) -> None:
        super().__init__()
        if tuple(table.weight.shape) != (plan.num_rows, plan.dim):
            shape = tuple(table.weight.shape)
            raise ValueError(f"plan wants a {plan.num_rows} x {plan.dim} table, got {shape}")
        self.plan = plan
        self.table = table
        for number, layout in enumerate(plan.layouts):
            for kind, tensor in _salts(layout).items():
                self.register_buffer(f"{kind}_{number}", tensor, persistent=False)

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
        stream = _Stream(self.plan.num_rows, numbered[0][1].single.device)
        for number, block in numbered:
            layout = self.plan.layouts[number]
            _check(number, layout, block)
            stream.add_single(block.single, *self._single_lookups(number))
            salts = self.get_buffer(f"multi_salts_{number}")
            counts = [multiplicity for _, multiplicity in layout.multi]
            for jagged, part in zip(block.multi, salts.split(counts), strict=True):
                stream.add_multi(jagged.values, jagged.lengths(), part)
        rows, offsets = stream.join()
        pieces = iter(stream.split(self.table(rows, offsets)))
        embedded = []
        for _, block in numbered:
            parts = [next(pieces) for _ in range(1 + len(block.multi))]
            embedded.append(torch.cat([*parts, block.dense], dim=1))
        return embedded

    def _single_lookups(self, number: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"columns_{number}"), self.get_buffer(f"single_salts_{number}")


class _Stream:
    """Bags of all features, one after the other: rows, lengths, and how to cut the result."""

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.num_rows = num_rows
        self.device = device
        self.rows: list[Tensor] = []
        self.lengths: list[Tensor] = []
        self.cuts: list[tuple[int, int, Tensor | None]] = []

    def add_single(self, values_NF: Tensor, columns_S: Tensor, salts_S: Tensor) -> None:
        rows_NS = table_rows(values_NF[:, columns_S], salts_S, self.num_rows)
        self.rows.append(rows_NS.reshape(-1))
        self.lengths.append(torch.ones_like(self.rows[-1]))
        self.cuts.append((*rows_NS.shape, None))

    def add_multi(self, values_T: Tensor, lengths_N: Tensor, salts_M: Tensor) -> None:
        """M lookups of one multi-valued feature, each the mean over the row's values."""
        rows_MT = table_rows(values_T, salts_M.unsqueeze(1), self.num_rows)
        self.rows.append(rows_MT.reshape(-1))
        self.lengths.append(lengths_N.repeat(len(salts_M)))
        self.cuts.append((len(lengths_N), len(salts_M), lengths_N))

    def join(self) -> tuple[Tensor, Tensor]:
        lengths = torch.cat(self.lengths)
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        return torch.cat(self.rows), offsets

    def split(self, pooled: Tensor) -> list[Tensor]:
        """Return one (N, lookups * dim) a segment."""
        sizes = [num * lookups for num, lookups, _ in self.cuts]
        pieces = []
        for piece, (num, lookups, lengths) in zip(pooled.split(sizes), self.cuts, strict=True):
            if lengths is not None:
                mean = piece.view(lookups, num, -1) / lengths.clamp(min=1).view(1, num, 1)
                piece = mean.transpose(0, 1)
            pieces.append(piece.reshape(num, lookups * pooled.shape[1]))
        return pieces


def _salts(layout: FeatureLayout) -> dict[str, Tensor]:
    """Salts of all lookups, and which column of the single-valued block each of them reads."""
    none = torch.zeros(0, dtype=torch.int64)
    single = [salts_of(name, multiplicity) for name, multiplicity in layout.single]
    multi = [salts_of(name, multiplicity) for name, multiplicity in layout.multi]
    columns = [column for column, (_, m) in enumerate(layout.single) for _ in range(m)]
    return {
        "columns": torch.tensor(columns, dtype=torch.int64),
        "single_salts": torch.cat([none, *single]),
        "multi_salts": torch.cat([none, *multi]),
    }


def _check(number: int, layout: FeatureLayout, block: FeatureBlock) -> None:
    got = (block.single.shape[1], len(block.multi), block.dense.shape[1])
    want = (len(layout.single), len(layout.multi), len(layout.dense))
    if got != want:
        raise ValueError(
            f"side {number} wants (single, multi, dense) features {want}, the block has {got}"
        )
