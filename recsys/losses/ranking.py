"""Loss of a ranker whose rows are labelled 0 or 1."""

from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(
    logits_B: Tensor, label_B: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """Return -y log p - (1 - y) log(1 - p) of each row, (B,) in nats, with p = sigmoid(logit).

    y = label (1 - label_smoothing) + label_smoothing / 2 (Szegedy et al., CVPR 2016, section 7).
    """
    if label_smoothing:
        label_B = label_B * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits_B, label_B, reduction="none")
