"""A plain multi-layer perceptron."""

from collections.abc import Sequence

from torch import nn


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int, *, dropout: float) -> nn.Sequential:
    """Return (N, in_dim) -> (N, out_dim): linear, ReLU and dropout a hidden layer, then linear."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(in_dim, width), nn.ReLU(), nn.Dropout(dropout)]
        in_dim = width
    return nn.Sequential(*layers, nn.Linear(in_dim, out_dim))
