"""A plain multi-layer perceptron."""

from collections.abc import Sequence

from torch import Tensor, nn

from recsys.layers.choices import Norm
from recsys.layers.norm import BatchNorm, norm_of, takes_bias_off


class Perceptron(nn.Sequential):
    """Layers in a row, of which batch normalisation, ReLU and dropout are computed at once."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the last layer gives."""
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, BatchNorm):
                _, dropout = next(layers), next(layers)
                x = layer(x, relu=True, dropout=dropout.p)
            else:
                x = layer(x)
        return x


def mlp(
    in_dim: int,
    hidden: Sequence[int],
    out_dim: int,
    *,
    dropout: float,
    norm: Norm = "none",
    bias: bool = True,
) -> Perceptron:
    """Return (N, in_dim) -> (N, out_dim): hidden layers, then a linear one.

    A hidden layer is a linear one, the normalisation `norm`, ReLU and dropout. `bias`: of the last
    one.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(in_dim, width, bias=not takes_bias_off(norm)), *norm_of(norm, width)]
        layers += [nn.ReLU(), nn.Dropout(dropout)]
        in_dim = width
    return Perceptron(*layers, nn.Linear(in_dim, out_dim, bias=bias))
