"""What one kind of model is to those who build, load and grow models without knowing it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from recsys.bundle.transfer import Axes
from recsys.core.strict import StrictModel
from recsys.embeddings.unified import UnifiedEmbedding


def unknown_axes(_config: Any) -> Axes | None:
    """Return None: such a model starts from an earlier one of the same features alone."""
    return None


class ModelConfig(StrictModel):
    """The settings of a model, of which `kind` is the name that a registry has for it."""

    kind: str


@dataclass(frozen=True)
class ModelKind:
    """The entry of a registry, whose key is the `kind` of the settings.

    config: the class of the settings. build: settings and the embedding to a model with fresh
    weights. axes: settings to which axes of which weights run over the embedded rows
    (`recsys.bundle.transfer`); None where that is not known. of_steps: whether the model reads a
    history step by step, with what the log says of each step. has_representation: whether it has a
    method `represent`, what the readout sees of each row.
    """

    config: type[ModelConfig]
    build: Callable[[Any, UnifiedEmbedding], nn.Module]
    axes: Callable[[Any], Axes | None] = unknown_axes
    of_steps: bool = False
    has_representation: bool = False
