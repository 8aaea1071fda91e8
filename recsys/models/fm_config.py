"""Settings of the ranker `recsys.models.fm`."""

from typing import Literal

from recsys.layers.choices import Combine
from recsys.models.kind import ModelConfig


class FMConfig(ModelConfig):
    """Options of an `FM`; its factors are as wide as a row of the table."""

    kind: Literal["fm"] = "fm"
    combine: Combine = "project"
    """How the lookups of a feature of several become one field."""
