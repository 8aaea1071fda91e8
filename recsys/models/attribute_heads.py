"""More questions to a state than the next item: that item's category, its brand, its words.

Shalaby et al., "M2TRec", RecSys 2022, https://arxiv.org/abs/2209.11824, section 3.3: a session
says more surely what kind of thing comes next than which one, and items without a history are
found through their kind. Weights of the tasks may be learnt, as in Kendall, Gal and Cipolla,
"Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, equation 10.

Shape letters: P questions, D width of a state, K classes of an attribute, T values in all.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.losses.chunked import negative_logsumexp


class AttributeHead(nn.Module):
    """Scores of the K classes of one attribute; an item may be of several."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(dim, num_classes)

    def loss(self, states_PD: Tensor, wanted: Jagged) -> Tensor:
        """Return the cross-entropy to equal shares of what is wanted, (P,) float32, in nats.

        wanted: P rows of distinct classes, at least one in each.
        """
        ones_P1 = states_PD.new_ones(len(states_PD), 1)
        states_PX = torch.cat([states_PD, ones_P1], dim=1)
        classes_KX = torch.cat([self.classes.weight, self.classes.bias[:, None]], dim=1)
        nothing = Jagged(wanted.values[:0], wanted.offsets.new_zeros(len(states_PD) + 1))
        denominator_P = negative_logsumexp(states_PX, classes_KX, nothing)
        lengths_P = wanted.lengths()
        row_T = torch.repeat_interleave(
            torch.arange(len(lengths_P), device=lengths_P.device),
            lengths_P,
            output_size=len(wanted.values),
        )
        logit_T = (states_PX[row_T].float() * classes_KX[wanted.values].float()).sum(1)
        summed_P = torch.zeros_like(denominator_P).index_add(0, row_T, logit_T)
        return denominator_P - summed_P / lengths_P


class AttributeHeads(nn.Module):
    """One head an attribute, and how much each task counts."""

    def __init__(
        self, dim: int, num_classes: Mapping[str, int], weights: Mapping[str, float], learn: bool
    ) -> None:
        """Size the heads.

        Args:
            dim: width of a state.
            num_classes: attribute -> K.
            weights: attribute -> how much its loss counts against the next item's 1.
            learn: take the weights for a start alone.
        """
        super().__init__()
        self.heads = nn.ModuleList(AttributeHead(dim, count) for count in num_classes.values())
        self.names = tuple(num_classes)
        start = [0.0, *(-math.log(weights[name]) for name in self.names)]
        self.log_variance = nn.Parameter(torch.tensor(start), learn)

    def losses(self, states_PD: Tensor, wanted: Mapping[str, Jagged]) -> dict[str, Tensor]:
        """Return each attribute's losses, (P,) float32."""
        return {
            name: head.loss(states_PD, wanted[name])
            for name, head in zip(self.names, self.heads, strict=True)
            if isinstance(head, AttributeHead)
        }

    def joined(self, next_item: Tensor, attributes: Mapping[str, Tensor]) -> Tensor:
        """Return one loss of that of the next item and those of the attributes, scalars.

            sum_i exp(-v_i) loss_i, and where the v are learnt + v_i / 2

        exp(-v) starts as the weights.
        """
        losses = torch.stack([next_item, *(attributes[name] for name in self.names)])
        joined = (losses * (-self.log_variance).exp()).sum()
        if self.log_variance.requires_grad:
            joined = joined + self.log_variance.sum() / 2
        return joined


def classes_of(values: Jagged) -> tuple[Jagged, int]:
    """Number the distinct values of N rows: return rows of distinct class numbers, and K."""
    distinct, number_T = values.values.unique(return_inverse=True)
    lengths = values.lengths()
    row_T = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    pairs = (row_T * len(distinct) + number_T).unique()
    rows = torch.div(pairs, len(distinct), rounding_mode="floor")
    counts = torch.bincount(rows, minlength=len(lengths))
    return Jagged(pairs % len(distinct), F.pad(counts.cumsum(0), (1, 0))), len(distinct)
