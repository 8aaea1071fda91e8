"""Soft selection: gates on the embedding, learnt on validation rows, then pruned to a budget.

Cheng, Shen and Huang, "Differentiable Neural Input Search for Recommender Systems", 2020,
https://arxiv.org/abs/2006.04466 (DNIS). A *soft selection layer* alpha in [0, 1] is multiplied
into the output of the embedding, e' = e * alpha. The model's weights descend on the training
loss, alpha on the validation loss; its gradient is normalised, and the result clipped to [0, 1].
Then the entries of e * alpha below a threshold are pruned, which leaves embeddings of mixed
dimensions, and the model is trained again.

Where we differ. The paper has a row of gates for each block of values of similar frequency; a
value that is hashed into a shared table has no row of its own to cut, so here each *lookup* of
each feature has its own, and what is recommended is how many lookups a feature keeps. The
gradient of alpha is the first-order one: weights count as constants, which is the paper's
unrolled step with a rate of 0.

Shape letters: N rows of a side, L lookups of it, D width of a row of the table, W = L * D + the
dense columns.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.unified import UnifiedEmbedding


class SoftSelection(nn.Module):
    """Gates on every lookup and dimension of a side's embedded row; all open to begin with."""

    def __init__(self, layout: FeatureLayout, dim: int) -> None:
        super().__init__()
        self.features = tuple(name for name, m in layout.features for _ in range(m))
        # No parameter of the weights' optimizer: it has a step of its own (`stepped`).
        self.gates_LD = nn.Parameter(torch.ones(len(self.features), dim), requires_grad=False)

    def forward(self, embedded_NW: Tensor) -> Tensor:
        """Return (N, W): the lookups times their gates, the dense columns as they are."""
        gates_W = self.gates_LD.flatten()
        width = len(gates_W)
        gated_NW = embedded_NW[:, :width] * gates_W
        if embedded_NW.shape[1] == width:
            return gated_NW
        return torch.cat([gated_NW, embedded_NW[:, width:]], dim=1)


class GatedEmbedding(nn.Module):
    """A unified embedding of one side with a soft selection layer on top."""

    def __init__(self, embedding: UnifiedEmbedding) -> None:
        super().__init__()
        (layout,) = embedding.plan.layouts
        self.embedding = embedding
        self.selection = SoftSelection(layout, embedding.plan.dim)
        self.selection.to(embedding.table.weight.device)

    def forward(self, blocks: Sequence[FeatureBlock]) -> list[Tensor]:
        """Return [(N, W)].

        While the gates want a gradient the table is read without one: its update is fused into
        the backward pass, and a step of the gates must not move it.
        """
        learns_gates = self.selection.gates_LD.requires_grad
        with torch.no_grad() if learns_gates else nullcontext():
            (embedded_NW,) = self.embedding(blocks)
        return [self.selection(embedded_NW)]


def normalised(gradient_LD: Tensor, features: Sequence[str]) -> Tensor:
    """Return the gradient with a mean size of 1 over the gates of each feature (zeros stay 0).

    DNIS, "gradient normalization": a feature that is seen more often, or whose vectors are
    longer, has larger gradients, and would else be alone to be selected.

    Args:
        gradient_LD: of the loss by the gates.
        features: (L,) whose lookup each row is.
    """
    result_LD = torch.zeros_like(gradient_LD)
    for rows in rows_by_feature(features).values():
        size = gradient_LD[rows].abs().mean()
        if size > 0:
            result_LD[rows] = gradient_LD[rows] / size
    return result_LD


def stepped(gates_LD: Tensor, gradient_LD: Tensor, rate: float) -> Tensor:
    """Return the gates one step down the gradient, clipped to [0, 1]."""
    return (gates_LD - rate * gradient_LD).clamp(0.0, 1.0)


def pruned(strength_LD: Tensor, kept: int) -> Tensor:
    """Return which entries stay, (L, D) bool: the `kept` strongest and no other.

    DNIS prunes the entries of e * alpha below a threshold, which the available memory sets; this
    is the threshold that leaves `kept` of them. Of equal ones the first stay.

    Raises:
        ValueError: `kept` is negative, or more than there are.
    """
    if not 0 <= kept <= strength_LD.numel():
        raise ValueError(f"cannot keep {kept} of {strength_LD.numel()} entries")
    order = strength_LD.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(strength_LD.numel(), dtype=torch.bool, device=strength_LD.device)
    mask[order[:kept]] = True
    return mask.view_as(strength_LD)


@dataclass(frozen=True)
class Selected:
    """What a search makes of one feature.

    multiplicity: how many lookups it gets. earned: how many of its lookups are among the best;
    0: the feature may be dropped. kept_dims: entries of all its lookups that stay at the
    threshold. gate_mass: sum of its gates, in dimensions. score: what its lookups contribute.
    """

    feature: str
    multiplicity: int
    earned: int
    kept_dims: int
    gate_mass: float
    score: float


def recommended(
    features: Sequence[str],
    score_L: Tensor,
    gates_LD: Tensor,
    strength_LD: Tensor,
    lookups: int,
    *,
    least: int = 1,
) -> list[Selected]:
    """Return what each feature gets of `lookups` table reads, in the features' order.

    Every feature has `least` lookups; the others go to the best by score. As many entries of
    `strength_LD` stay as `lookups` whole lookups have.

    Args:
        features: (L,) whose lookup each row is.
        score_L: what each lookup contributes, larger is better.
        gates_LD: the gates.
        strength_LD: size of e * alpha.
        lookups: the budget.
        least: lookups that no feature goes below, however useless; 0 or more.

    Raises:
        ValueError: the budget is below `least` for each feature, or above all lookups.
    """
    by_feature = rows_by_feature(features)
    if not least * len(by_feature) <= lookups <= len(features):
        raise ValueError(
            f"a budget of {lookups} lookups, which must be between {least * len(by_feature)} and "
            f"{len(features)} for these {len(by_feature)} features"
        )
    ranked = score_L.argsort(descending=True, stable=True).tolist()
    best = ranked[:lookups]
    given = {name: min(least, len(rows)) for name, rows in by_feature.items()}
    place = dict.fromkeys(by_feature, 0)
    for row in ranked:
        name = features[row]
        place[name] += 1
        if place[name] > given[name] and sum(given.values()) < lookups:
            given[name] += 1
    mask_LD = pruned(strength_LD, lookups * strength_LD.shape[1])
    return [
        Selected(
            feature=name,
            multiplicity=given[name],
            earned=sum(1 for row in best if row in rows),
            kept_dims=int(mask_LD[rows].sum()),
            gate_mass=float(gates_LD[rows].sum()),
            score=float(score_L[rows].sum()),
        )
        for name, rows in by_feature.items()
    ]


def evenly(cardinalities: Mapping[str, int], lookups: int) -> dict[str, int]:
    """Return `lookups` table reads shared out evenly; what is left over goes to the largest."""
    each, rest = divmod(lookups, len(cardinalities))
    largest = sorted(cardinalities, key=lambda name: -cardinalities[name])[:rest]
    return {name: each + (name in largest) for name in cardinalities}


def rows_by_feature(features: Sequence[str]) -> dict[str, list[int]]:
    """Return feature -> the numbers of its lookups, features in order."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(features):
        found.setdefault(name, []).append(row)
    return found
