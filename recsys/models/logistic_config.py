"""Settings of the ranker `recsys.models.logistic`."""

from typing import Literal

from recsys.models.kind import ModelConfig


class LogisticConfig(ModelConfig):
    """A `Logistic` has no sizes."""

    kind: Literal["logistic"] = "logistic"
