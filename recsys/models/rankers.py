"""The rankers by the name of their kind: what a configuration may ask for, and how it is built."""

from typing import Annotated

from pydantic import Field
from torch import nn

from recsys.bundle.transfer import Axes
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models.autoint import AutoInt, AutoIntConfig
from recsys.models.dcn import DCN, DCNConfig, embedded_axes
from recsys.models.deep import Deep, DeepConfig
from recsys.models.fm import FM, FMConfig
from recsys.models.logistic import Logistic, LogisticConfig

RankerConfig = Annotated[
    AutoIntConfig | DCNConfig | DeepConfig | FMConfig | LogisticConfig,
    Field(discriminator="kind"),
]
RANKERS = ("autoint", "dcn", "mlp", "fm", "logistic")
"""Kinds of model that judge labelled rows."""


def build_ranker(config: RankerConfig, embedding: UnifiedEmbedding) -> nn.Module:
    """Return the model over the one side of `embedding`; it turns a block into logits (B,).

    Raises:
        ConfigError: its options do not go with the features.
    """
    plan = embedding.plan
    if isinstance(config, AutoIntConfig):
        return AutoInt(config, embedding, plan.layouts[0], plan.dim)
    if isinstance(config, FMConfig):
        return FM(config, embedding, plan.layouts[0], plan.dim)
    if isinstance(config, LogisticConfig):
        return Logistic(config, embedding, plan.layouts[0], plan.dim)
    if isinstance(config, DeepConfig):
        return Deep(config, embedding, plan.width(0))
    return DCN(config, embedding, plan.width(0))


def ranker_axes(config: RankerConfig) -> Axes | None:
    """Return which axes of which weights run over the embedded row; None: they are not known.

    A model of unknown axes starts from an earlier one of the same features alone.
    """
    if isinstance(config, DCNConfig):
        return embedded_axes(config)
    if isinstance(config, DeepConfig):
        return {"deep.0.weight": ((1, 0),)}
    return None
