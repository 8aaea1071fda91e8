"""Settings of a transformer over sessions (`recsys.models.session`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recsys.core.bounds import Steps, Width
from recsys.layers.choices import Geometry
from recsys.layers.transformer_config import TransformerConfig
from recsys.models.kind import ModelConfig
from recsys.retrieval.memory_config import Memory, MemoryConfig, memory_of_earlier

MAY_BEGIN = frozenset({"repeat.weight", "repeat.bias"})
"""Weights that start at 0, where they change nothing."""

Repeats = Literal["auto", "never"] | bool


class SessionTransformerConfig(ModelConfig):
    """Sizes of a `SessionTransformer`."""

    kind: Literal["session"] = "session"
    dim: Width = 64
    """Width of steps, queries and items; `biased_sphere` adds a number to the last two."""
    geometry: Geometry = "sphere"
    """`sphere` compares by cosines, `biased_sphere` adds a number of each item's own to them, `dot`
    does so to plain products, `ball` compares by distances."""
    hidden: tuple[Width, ...] = ()
    """Layers between an item's embedded features and its vector."""
    history_length: Steps = 50
    """How many of the last steps the model sees."""
    transformer: TransformerConfig = TransformerConfig()
    """Sizes of the transformer."""
    time_gaps: bool = False
    """Whether a step knows how long after the one before it came (needs interactions.time)."""
    readout: Literal["last", "items"] = "last"
    """What a query is made of: `last`, the last step as the transformer gives it; `items`, next to
    it a weighted mean of the vectors of the session's items (`recsys.layers.readout`)."""
    repeats: Repeats = "auto"
    """Items of the session itself. `true`: a query says how much they gain or lose by being in it;
    `never`: they are not in its list; `false`: they are scored as all others. `auto`: `never` where
    the training rows hardly ever come back to an item, else `true`, or `false` where
    evaluation.filter_seen leaves them out; the bundle holds what was decided."""
    memory: Memory = MemoryConfig()
    """What is remembered of pairs of items and added to the scores after training: `pairs` or
    `none`, or a mapping with settings."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Of what goes into the transformer; inside it is `transformer.dropout`."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """What products are divided by; 1 suits `dot`."""
    learn_temperature: bool = True
    """Let training change the temperature."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "SessionTransformerConfig":
        self.transformer.check_width(self.dim)
        return self

    @classmethod
    def of_earlier(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a model that was written before some of them were added."""
        return {"repeats": False, **raw, "memory": memory_of_earlier(raw)}

    @property
    def interests(self) -> int:
        """Vectors of a query."""
        return 1
