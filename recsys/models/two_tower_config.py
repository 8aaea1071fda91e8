"""Settings of a two-tower (`recsys.models.two_tower`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from recsys.core.bounds import Steps, Width
from recsys.core.strict import StrictModel
from recsys.layers.choices import Geometry, Norm
from recsys.models.kind import ModelConfig
from recsys.retrieval.memory_config import Memory, MemoryConfig, memory_of_earlier


class SmoothingConfig(StrictModel):
    """Items with the same users come nearer (`recsys.layers.smoothing`)."""

    rounds: Annotated[int, Field(ge=0)] = 0
    """0: none. Others encode the whole catalogue at every step: for small catalogues."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much the neighbours count against the item itself."""


class TwoTowerConfig(ModelConfig):
    """Sizes of a `TwoTower`."""

    kind: Literal["two_tower"] = "two_tower"
    dim: Width = 64
    """Width of query and item vectors; other geometries than the sphere add a number or two."""
    geometry: Geometry = "sphere"
    """`sphere`: unit vectors, compared by their cosine; `biased_sphere`: a number of each item's
    own is added to the cosine; `ball`: points at most 1 from the middle, compared by their
    distance."""
    hidden: tuple[Width, ...] = (128,)
    """Widths of both towers' hidden layers."""
    history_length: Steps = 50
    """How many of the last events the query tower sees."""
    history_heads: Width = 3
    """Weighted means of the history that a query reads, each with weights of its own."""
    interests: Width = 1
    """Vectors of a query; an item's score is the best over them."""
    smoothing: SmoothingConfig = SmoothingConfig()
    """Average item vectors over the items of the same users, as graph models do."""
    memory: Memory = MemoryConfig(kind="none")
    """What is remembered of pairs of items and added to the scores after training: `pairs` or
    `none`, or a mapping with settings."""
    norm: Norm = "none"
    """Normalisation in each hidden layer of the towers: `batch`, `layer` or `none`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the towers' hidden layers."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Cosines are divided by it before the softmax."""
    learn_temperature: bool = True
    """Let training change the temperature."""

    @classmethod
    def of_earlier(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a model that was written before some of them were added."""
        return {**raw, "memory": memory_of_earlier(raw)}

    @property
    def repeats(self) -> Literal[False]:
        """What items of a history gain by being in it: nothing."""
        return False
