"""What one kind of model is to those who build, load and grow models without knowing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from recsys.core.imports import on_first_use
from recsys.core.strict import StrictModel

with on_first_use():
    from torch import nn

Axes = Mapping[str, tuple[tuple[int, int], ...]]
"""Name of a weight -> (axis, side) of each axis whose first columns are the side's embedded row;
columns past its width are the model's own."""


def unknown_axes(_config: Any) -> Axes | None:
    """Return None: such a model starts from an earlier one of the same features alone."""
    return None


Reads = Literal["row", "request", "steps", "items", "parts"]
"""A row of the log; a request with items and its history as a whole; a history step by step,
with what the log says of each step; the items of a history alone; or whatever its parts read."""
Answers = Literal["lists", "rows"]
"""Lists of items for requests, or a probability for each row."""


class ModelConfig(StrictModel):
    """The settings of a model, of which `kind` is the name that a registry has for it."""

    kind: str

    @classmethod
    def of_earlier(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a model that was written before some of them were added."""
        return dict(raw)


@dataclass(frozen=True)
class Kind:
    """What the name of a kind of model stands for, learned or not.

    config: the class of the settings. reads: what one example is. answers: what the model gives.
    """

    config: type[ModelConfig]
    reads: Reads = field(default="request", kw_only=True)
    answers: Answers = field(default="lists", kw_only=True)

    @property
    def of_steps(self) -> bool:
        """Whether the model reads a history step by step."""
        return self.reads == "steps"

    @property
    def of_parts(self) -> bool:
        """Whether the model is made of others, each of which reads a request in its own way."""
        return self.reads == "parts"

    @property
    def of_items_alone(self) -> bool:
        """Whether the model reads the items of a history, or of a session, and nothing else."""
        return self.reads == "items"


@dataclass(frozen=True)
class ModelKind(Kind):
    """A kind of model that learns: the entry of a registry, whose key is `kind` of the settings.

    build: settings and the embedding to a model with fresh weights; where it has_outcomes, the
    number of them comes third. axes: settings to which axes of which weights run over the embedded
    rows (`recsys.bundle.transfer`); None where that is not known. has_representation: whether it
    has a method `represent`, what the readout sees of each row. has_outcomes: whether it predicts
    as many outcomes of a row as it is asked to, not the label alone. may_begin: weights that an
    earlier model may lack, since at their initial values they change nothing. table: settings of
    the embedding table that suit it and are used where a configuration has none, beside those of
    its family.
    """

    build: Callable[..., nn.Module]
    axes: Callable[[Any], Axes | None] = unknown_axes
    has_representation: bool = False
    has_outcomes: bool = False
    may_begin: frozenset[str] = frozenset()
    table: Mapping[str, Any] = field(default_factory=dict)
