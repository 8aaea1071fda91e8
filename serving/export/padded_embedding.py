"""The unified embedding of one side over padded tensors: gathers of its table, lists padded.

The hash from a value to a row is one operator in torch, so that graphs write it out by hand.

Shape letters: B rows, L longest list, M lookups of a feature, S lookups of the single-valued
features, E width of a feature's vector.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import FeatureLayout
from recsys.data.feature_options import BY_CANDIDATE, HistoryPooling
from recsys.embeddings.hashing import salts_of, table_rows
from recsys.embeddings.unified import UnifiedEmbedding, activation_in

_LOOKUP = ("salts", "count", "first")


@torch.library.custom_op("recsys::table_rows", mutates_args=())
def _table_rows(values: Tensor, salts: Tensor, num_rows: Tensor) -> Tensor:
    """One node of the graph in torch, so that it can be written out by hand in ONNX."""
    return table_rows(values, salts, num_rows)


@_table_rows.register_fake
def _shape_of_table_rows(values: Tensor, salts: Tensor, num_rows: Tensor) -> Tensor:
    return values.new_empty(torch.broadcast_shapes(values.shape, salts.shape))


class PaddedEmbedding(nn.Module):
    """What `UnifiedEmbedding.side` gives of rows whose lists are padded; its table is no copy."""

    def __init__(self, embedding: UnifiedEmbedding, layout: FeatureLayout) -> None:
        super().__init__()
        self.layout, self.plan = layout, embedding.plan
        self.register_buffer("table", embedding.table.weight.detach())
        self.activations = copy.deepcopy(embedding.activations).eval()
        self.inputs = input_names(layout)
        single = [(column, *pair) for column, pair in enumerate(layout.single)]
        where = [self._lookups(name, m) for _, name, m in single]
        columns = [column for column, _, m in single for _ in range(m)]
        self._add("single", [torch.cat(parts) for parts in zip(*where, strict=True)])
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64))
        for number, (name, multiplicity) in enumerate(layout.multi):
            self._add(f"multi_{number}", self._lookups(name, multiplicity))

    def forward(self, *given: Tensor) -> Tensor:
        """Return (B, width) of inputs in the order of `inputs`: see `input_names`."""
        inputs = dict(zip(self.inputs, given, strict=True))
        found: dict[str, Tensor] = {}
        if "single" in inputs:
            columns_BS = inputs["single"][:, self.get_buffer("columns")]
            widths = [multiplicity * self.plan.dim for _, multiplicity in self.layout.single]
            parts = self._read("single", columns_BS).flatten(1).split(widths, dim=1)
            names = [name for name, _ in self.layout.single]
            found = dict(zip(names, parts, strict=True))
        multi = [
            (f"multi_{number}", name, pooling)
            for number, ((name, _), pooling) in enumerate(
                zip(self.layout.multi, self.layout.poolings, strict=True)
            )
        ]
        # What attention asks with comes first.
        for lookups, name, pooling in sorted(multi, key=lambda one: one[2] in BY_CANDIDATE):
            vectors_BLE = self._read(lookups, inputs[f"values.{name}"].unsqueeze(2)).flatten(2)
            query_BE, weights_BL = found.get(self.layout.source_of(name)), inputs[f"weights.{name}"]
            if pooling == "activation":
                unit = activation_in(self.activations, name)
                assert query_BE is not None
                assert unit is not None
                query_BLE = query_BE.unsqueeze(1).expand_as(vectors_BLE)
                weights_BL = weights_BL * unit.shares(query_BLE, vectors_BLE)
            found[name] = _pooled(vectors_BLE, weights_BL, pooling, query_BE)
        embedded = [found[name] for name, _ in self.layout.features]
        embedded += [inputs["dense"]] if "dense" in inputs else []
        return torch.cat(embedded, dim=1)

    def _lookups(self, name: str, multiplicity: int) -> list[Tensor]:
        """Return salt, number of rows and first row of each lookup, (M,) int64 each."""
        first, count = self.plan.range_of(name)
        ones = torch.ones(multiplicity, dtype=torch.int64)
        return [salts_of(self.layout.source_of(name), multiplicity), ones * count, ones * first]

    def _add(self, name: str, lookups: list[Tensor]) -> None:
        for kind, tensor in zip(_LOOKUP, lookups, strict=bool(lookups)):
            self.register_buffer(f"{name}_{kind}", tensor)

    def _read(self, name: str, values: Tensor) -> Tensor:
        """Return what the lookups read for values (..., M) or (..., 1), (..., M, dim)."""
        salts, count, first = (self.get_buffer(f"{name}_{kind}") for kind in _LOOKUP)
        rows = torch.ops.recsys.table_rows(values, salts, count) + first
        return F.embedding(rows, self.get_buffer("table"))


def _pooled(
    vectors_BLE: Tensor, weights_BL: Tensor, pooling: HistoryPooling, query_BE: Tensor | None
) -> Tensor:
    """Return the vector of each list, (B, E): `UnifiedEmbedding`'s poolings over padded lists."""
    if pooling == "attention":
        assert query_BE is not None
        score_BL = (vectors_BLE @ query_BE.unsqueeze(2)).squeeze(2) * query_BE.shape[1] ** -0.5
        lowest = torch.finfo(score_BL.dtype).min
        top_B1 = torch.where(weights_BL > 0, score_BL, lowest).amax(1, keepdim=True)
        # Padding may be more similar than all that counts: its exponent must not overflow.
        weights_BL = weights_BL * (score_BL - top_B1).clamp(max=0).exp()
        total_B1 = weights_BL.sum(1, keepdim=True).clamp(min=torch.finfo(score_BL.dtype).tiny)
        weights_BL = weights_BL / total_B1
    summed_BE = (weights_BL.unsqueeze(1) @ vectors_BLE).squeeze(1)
    if pooling in ("sum", *BY_CANDIDATE):
        return summed_BE
    squares_BL = weights_BL if pooling == "mean" else weights_BL.square()
    total_B1 = squares_BL.sum(1, keepdim=True)
    total_B1 = total_B1.sqrt() if pooling == "sqrtn" else total_B1
    return summed_BE / torch.where(total_B1 > 0, total_B1, 1.0)


def input_names(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the names of the graph's inputs, in order."""
    multi = [f"{kind}.{name}" for name, _ in layout.multi for kind in ("values", "weights")]
    single, dense = ["single"] * bool(layout.single), ["dense"] * bool(layout.dense)
    return (*single, *multi, *dense)
