"""A plain multi-layer perceptron."""

from collections.abc import Sequence

from torch import nn

from recsys.layers.norm import Norm, norm_of, takes_bias_off


def mlp(
    in_dim: int,
    hidden: Sequence[int],
    out_dim: int,
    *,
    dropout: float,
    norm: Norm = "none",
    bias: bool = True,
) -> nn.Sequential:
    """Return (N, in_dim) -> (N, out_dim): hidden layers, then a linear one.

    A hidden layer is a linear one, the normalisation `norm`, ReLU and dropout. `bias`: of the last
    one.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(in_dim, width, bias=not takes_bias_off(norm)), *norm_of(norm, width)]
        layers += [nn.ReLU(), nn.Dropout(dropout)]
        in_dim = width
    return nn.Sequential(*layers, nn.Linear(in_dim, out_dim, bias=bias))
