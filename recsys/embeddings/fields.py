"""From an embedded row to fields: one vector of the same width for every feature.

Attention over fields (AutoInt, Song et al., CIKM 2019, https://arxiv.org/abs/1810.11921, section
4.2) wants N fields of one width E. Features of the unified embedding have widths of their own,
multiplicity x dim, and numbers have none.

    sparse   `project`: a matrix of the feature's own, (multiplicity * dim, E), without bias
             `sum`: the sum of its lookups; all multiplicities are equal and E is dim
    dense    the paper's value x vector: e = x v, and a vector of its own for null. A `vector`
             feature of d numbers is one field, with a vector a number.

A feature of one lookup keeps its vector as it is where E is dim: then both ways are the paper's.

Shape letters: B rows, W width of the embedded row, N fields, E width of a field, G features of
one kind, I inputs of each.

    fields = Fields(layout, dim=plan.dim, width=16)
    fields(embedded_BW)   # (B, N, E)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureLayout
from recsys.layers.choices import Combine

_NULL = ".null"


class Fields(nn.Module):
    """Cuts (B, W) into the N fields of a `FeatureLayout`, sparse features first, then dense."""

    def __init__(
        self, layout: FeatureLayout, *, dim: int, width: int, combine: Combine = "project"
    ) -> None:
        """Prepare the projections.

        Args:
            layout: of the embedded row: features with multiplicities, dense columns.
            dim: width of a row of the table.
            width: E.
            combine: how the lookups of a sparse feature become one vector.

        Raises:
            ConfigError: `sum` with unequal multiplicities, or a width that is not `dim`.
        """
        super().__init__()
        self.width, self.dim, self.combine = width, dim, combine
        multiplicities = [multiplicity for _, multiplicity in layout.features]
        dense = dense_features(layout.dense)
        self.names = tuple(name for name, _ in layout.features) + tuple(name for name, _ in dense)
        if combine == "sum":
            _check_sum(layout, dim, width)
        sizes = [1 if combine == "sum" else m for m in multiplicities]
        keeps = combine == "sum" or width == dim
        groups = [(m * dim, m == 1 and keeps) for m in sizes]
        groups += [(columns, False) for _, columns in dense]
        self.num_lookups = sum(multiplicities)
        self._groups = _grouped(groups)
        self.projections = nn.ParameterList(
            _projection(len(members), inputs, width)
            for (inputs, kept), members in self._groups
            if not kept
        )
        starts = torch.tensor([0, *(inputs for inputs, _ in groups)]).cumsum(0)
        self._runs: list[slice | None] = []
        for number, ((inputs, _), members) in enumerate(self._groups):
            columns = (starts[members].unsqueeze(1) + torch.arange(inputs)).flatten()
            self.register_buffer(f"columns_{number}", columns, persistent=False)
            self._runs.append(_run(columns))
        order = torch.tensor([place for _, members in self._groups for place in members]).argsort()
        self.register_buffer("order", order, persistent=False)
        self._in_order = _run(order) is not None

    def forward(self, embedded_BW: Tensor) -> Tensor:
        """Return (B, N, E), in the order of `names`."""
        if self.combine == "sum":
            embedded_BW = self._summed(embedded_BW)
        parts, projections = [], iter(self.projections)
        for number, ((inputs, kept), members) in enumerate(self._groups):
            # A slice costs nothing, picking columns a tenth of a step.
            columns = self._runs[number] or self.get_buffer(f"columns_{number}")
            chosen_BGI = embedded_BW[:, columns].unflatten(1, (len(members), inputs))
            if kept:
                parts.append(chosen_BGI)
            else:
                parts.append(torch.einsum("bgi,gie->bge", chosen_BGI, next(projections)))
        fields_BNE = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return fields_BNE if self._in_order else fields_BNE[:, self.get_buffer("order")]

    def _summed(self, embedded_BW: Tensor) -> Tensor:
        """Add up the lookups of each sparse feature; dense columns stay."""
        end = self.num_lookups * self.dim
        num_sparse = sum(1 for (inputs, kept), m in self._groups if kept for _ in m)
        if not num_sparse:
            return embedded_BW
        lookups = embedded_BW[:, :end].unflatten(1, (num_sparse, -1, self.dim))
        return torch.cat([lookups.sum(2).flatten(1), embedded_BW[:, end:]], dim=1)


def dense_features(columns: Sequence[str]) -> list[tuple[str, int]]:
    """Return the features that dense columns belong to, with how many each has.

    A feature's columns are next to each other and end with its null indicator
    (`FeatureEncoder.layout`): "price", "price.null"; "plot.0", "plot.1", "plot.null".
    """
    found, count = [], 0
    for column in columns:
        count += 1
        if column.endswith(_NULL):
            found.append((column.removesuffix(_NULL), count))
            count = 0
    if count:
        raise ValueError(f"the last dense columns have no null indicator: {columns[-count:]}")
    return found


def _grouped(
    features: Sequence[tuple[int, bool]],
) -> list[tuple[tuple[int, bool], list[int]]]:
    """Features of equal inputs are one product: (inputs, kept as they are) -> their places."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for place, key in enumerate(features):
        groups.setdefault(key, []).append(place)
    return list(groups.items())


def _run(columns: Tensor) -> slice | None:
    """Return the slice that takes `columns` where they are next to each other in order."""
    first, count = int(columns[0]), len(columns)
    is_run = torch.equal(columns, torch.arange(first, first + count))
    return slice(first, first + count) if is_run else None


def _projection(count: int, inputs: int, width: int) -> nn.Parameter:
    """Return (G, I, E), drawn as `nn.Linear` draws its weights."""
    bound = inputs**-0.5
    return nn.Parameter(torch.empty(count, inputs, width).uniform_(-bound, bound))


def _check_sum(layout: FeatureLayout, dim: int, width: int) -> None:
    if width != dim:
        raise ConfigError(
            f"combine: sum makes fields embedding.dim wide, {dim}, not {width}: set "
            "combine: project"
        )
    if len({multiplicity for _, multiplicity in layout.features}) > 1:
        shown = ", ".join(f"{name} {multiplicity}" for name, multiplicity in layout.features)
        raise ConfigError(
            f"combine: sum needs features of equal multiplicities, got {shown}: set "
            "combine: project"
        )
