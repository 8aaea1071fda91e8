"""FuxiCTR's rankers, put together of the parts in its wheel; runs in the peers' environment."""

import tempfile
from typing import Any

import torch
from fuxictr.pytorch.layers import (
    CrossNetV2,
    FeatureEmbedding,
    MLP_Block,
    ScaledDotProductAttention,
)
from fuxictr.pytorch.models import BaseModel
from torch import nn


class Attention(nn.Module):
    """A layer of AutoInt's attention over the fields."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.attend, self.shape = ScaledDotProductAttention(), (heads, dim // heads)

    def forward(self, x: Any) -> Any:
        q, k, v = (
            part(x).unflatten(-1, self.shape).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        mixed, _ = self.attend(q, k, v)
        return (mixed.transpose(1, 2).flatten(2) + x).relu()


class Streams(nn.Module):
    """FinalMLP's two perceptrons and the bilinear form of both, without gates."""

    HEADS = 8

    def __init__(self, width: int, settings: dict[str, Any]) -> None:
        super().__init__()
        ends = (settings["hidden"], settings["second_hidden"])
        self.first, self.second = (perceptron(width, hidden, None, settings) for hidden in ends)
        one, two = (hidden[-1] for hidden in ends)
        self.linear = nn.Linear(one + two, 1)
        self.form = nn.Parameter(torch.empty(self.HEADS, one // self.HEADS, two // self.HEADS))
        nn.init.xavier_normal_(self.form)

    def forward(self, x: Any) -> Any:
        one, two = self.first(x), self.second(x)
        heads = zip(one.chunk(self.HEADS, 1), two.chunk(self.HEADS, 1), self.form, strict=True)
        products = sum(((a @ form) * b).sum(1, keepdim=True) for a, b, form in heads)
        return self.linear(torch.cat([one, two], 1)) + products


def perceptron(width: int, hidden: list[int], output: int | None, settings: dict[str, Any]) -> Any:
    """Return FuxiCTR's perceptron, normalised and with dropout where asked."""
    return MLP_Block(
        width,
        hidden_units=hidden,
        hidden_activations="ReLU",
        output_dim=output,
        dropout_rates=settings.get("dropout", 0.0),
        batch_norm=settings.get("batch_norm", False),
    )


def attention(width: int, settings: dict[str, Any]) -> nn.Module:
    """Return AutoInt's layers and readout, for fields (B, F, D)."""
    layers = [Attention(settings["dim"], settings["heads"]) for _ in range(settings["layers"])]
    return nn.Sequential(*layers, nn.Flatten(1), nn.Linear(width, 1))


def crosses(width: int, settings: dict[str, Any]) -> nn.Module:
    """Return DCN-V2's layers and readout, for flat rows (B, F D), as `Streams` reads them."""
    layers = [CrossNetV2(width, settings["layers"]), nn.Linear(width, 1)]
    return nn.Sequential(nn.Flatten(1), *layers)


def streams(width: int, settings: dict[str, Any]) -> nn.Module:
    """Return FinalMLP."""
    return nn.Sequential(nn.Flatten(1), Streams(width, settings))


INTERACTIONS = {"autoint": attention, "dcn": crosses, "finalmlp": streams}
"""What each model has beside the perceptron; none of them: a perceptron alone."""


class Ranker(BaseModel):  # type: ignore[misc]
    """The model that `settings` ask for, compiled with FuxiCTR's Adam."""

    def __init__(self, feature_map: Any, settings: dict[str, Any]) -> None:
        super().__init__(
            feature_map,
            embedding_regularizer=settings.get("regularizer"),
            model_root=tempfile.gettempdir(),
            metrics=["AUC"],
            verbose=0,
        )
        self.embedding_layer = FeatureEmbedding(feature_map, settings["dim"])
        width = feature_map.num_fields * settings["dim"]
        kind, hidden = settings.get("kind", "autoint"), settings["hidden"]
        parts = [INTERACTIONS[kind](width, settings)] if kind in INTERACTIONS else []
        if hidden and kind != "finalmlp":
            parts.append(nn.Sequential(nn.Flatten(1), perceptron(width, hidden, 1, settings)))
        self.parts = nn.ModuleList(parts)
        self.compile("adam", "binary_crossentropy", settings["learning_rate"])
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> Any:
        fields = self.embedding_layer(self.get_inputs(inputs))
        return {"y_pred": self.output_activation(sum(part(fields) for part in self.parts))}
