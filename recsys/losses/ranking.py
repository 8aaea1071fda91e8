"""Loss of a ranker whose rows are labelled 0 or 1."""

from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits_B: Tensor, label_B: Tensor) -> Tensor:
    """Return -log p(label) of each row, (B,) in nats, with p(1) = sigmoid(logit)."""
    return F.binary_cross_entropy_with_logits(logits_B, label_B, reduction="none")
