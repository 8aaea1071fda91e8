"""Dropout that draws a byte for each number: on a CPU drawing is most of what dropout costs.

Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BYTES = 256


class ByteDropout(nn.Module):
    """In training, zero each number with probability p and divide the others by 1 - p.

    On a CPU p is rounded to 256ths; on other devices this is `torch.nn.Dropout`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.dropped = min(round(p * _BYTES), _BYTES - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x, thinned out in training; any shape."""
        if x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        if not (self.training and self.dropped):
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = (words.view(torch.uint8)[: x.numel()] >= self.dropped).view(x.shape)
        return x * kept.to(x.dtype).mul_(_BYTES / (_BYTES - self.dropped))
