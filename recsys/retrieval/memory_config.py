"""Settings of the memory of pairs (`recsys.retrieval.memory`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from recsys.core.strict import StrictModel, named


class MemoryConfig(StrictModel):
    """What is remembered of pairs of items, and how much it counts."""

    kind: Literal["pairs", "none"] = "pairs"
    """`pairs`: add to an item's score by how often it followed the last items; `none`: do not."""
    weight: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """What is added is so many times the logarithm, in logits. `auto`: the best of a few on the
    validation queries by `training.metric`; 0.25 where they are fewer than 200."""
    steps: Annotated[int, Field(ge=1)] = 10
    """How far apart a pair may be, and how many of the last items are looked up."""
    lag_decay: Annotated[float, Field(gt=0, le=1)] = 0.6
    """What a pair loses of its weight for each step between its items."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.65
    """What an item of the history loses of its weight for each step since."""
    shrinkage: Annotated[float, Field(ge=0)] = 20.0
    """Added to what followed an item in all, in pairs: items with few pairs say less."""
    cells: Annotated[int, Field(ge=1)] = 100
    """Pairs kept of each item, the most frequent ones."""
    scale: Annotated[float, Field(gt=0)] = 300.0
    """What shares are multiplied by before the logarithm."""
    new_items: Annotated[float, Field(ge=0)] = 1.0
    """An item without a training row takes so many times the mean share of the 10 items whose
    vectors are nearest to its own; 0: it has no share, and sinks below those that have."""


Memory = Annotated[MemoryConfig, BeforeValidator(named)]
"""As a configuration has it: the name of a kind, or all settings."""


def memory_of_earlier(raw: Mapping[str, Any]) -> Any:
    """Return what settings of a model say of its memory, which may lack what was added since."""
    memory = raw.get("memory", "none")
    return {"new_items": 0.0, **memory} if isinstance(memory, Mapping) else memory
