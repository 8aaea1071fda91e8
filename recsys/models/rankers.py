"""The rankers by the name of their kind: what a configuration may ask for, and how it is built.

A ranker turns a block of rows into logits (B,) and has an `output_bias`; one that `has_outcomes`
turns it into logits (B, T) where there are T > 1 outcomes, those of the label first. To add one: a
file next to this one and one of its settings, an entry in `RANKERS`, and `RankerConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from recsys.core.imports import on_first_use
from recsys.models.autoint_config import AutoIntConfig
from recsys.models.dcn_config import DCNConfig
from recsys.models.deep_config import DeepConfig
from recsys.models.finalmlp_config import FinalMLPConfig
from recsys.models.fm_config import FMConfig
from recsys.models.kind import ModelKind
from recsys.models.logistic_config import LogisticConfig
from recsys.models.masknet_config import MaskNetConfig
from recsys.models.mmoe_config import MMoEConfig
from recsys.models.shared_bottom_config import SharedBottomConfig

with on_first_use():
    from torch import Tensor, nn

    from recsys.embeddings.unified import UnifiedEmbedding
    from recsys.models.autoint import AutoInt
    from recsys.models.dcn import DCN
    from recsys.models.dcn import embedded_axes as dcn_axes
    from recsys.models.deep import Deep
    from recsys.models.deep import embedded_axes as deep_axes
    from recsys.models.finalmlp import FinalMLP
    from recsys.models.finalmlp import embedded_axes as finalmlp_axes
    from recsys.models.fm import FM
    from recsys.models.logistic import Logistic
    from recsys.models.masknet import MaskNet
    from recsys.models.mmoe import MMoE
    from recsys.models.mmoe import embedded_axes as mmoe_axes
    from recsys.models.shared_bottom import SharedBottom
    from recsys.models.shared_bottom import embedded_axes as shared_bottom_axes

RankerConfig = Annotated[
    AutoIntConfig
    | DCNConfig
    | DeepConfig
    | FinalMLPConfig
    | MaskNetConfig
    | SharedBottomConfig
    | MMoEConfig
    | FMConfig
    | LogisticConfig,
    Field(discriminator="kind"),
]


def _of_fields(model: Callable[..., nn.Module]) -> Callable[[Any, UnifiedEmbedding], nn.Module]:
    """Return what builds a model that parts the embedded row by the layout of its features."""

    def build(config: Any, embedding: UnifiedEmbedding) -> nn.Module:
        return model(config, embedding, embedding.plan.layouts[0], embedding.plan.dim)

    return build


def _of_row(model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return what builds a model that reads the embedded row as a whole."""
    return lambda config, embedding, *outcomes: model(
        config, embedding, embedding.plan.width(0), *outcomes
    )


_ranker = partial(ModelKind, reads="row", answers="rows")

_of_outcomes = partial(_ranker, has_representation=True, has_outcomes=True)

_WITHOUT_NORMALISATION: Mapping[str, Any] = {
    "optimizer": "row_wise_adagrad",
    "learning_rate": 0.1,
    "weight_decay": 1e-5,
}
"""The weights of values have to grow as large as the data say: the decay that suits models with
normalisation keeps them small, and steps of Adam take long to get there. Logistic regression takes
no decay at all: the weight of a value is one number, which its rows decide."""

RANKERS: dict[str, ModelKind] = {
    "autoint": _ranker(AutoIntConfig, _of_fields(AutoInt), has_representation=True),
    "dcn": _ranker(DCNConfig, _of_row(DCN), dcn_axes, has_representation=True),
    "mlp": _ranker(DeepConfig, _of_row(Deep), deep_axes, has_representation=True),
    "finalmlp": _ranker(FinalMLPConfig, _of_row(FinalMLP), finalmlp_axes, has_representation=True),
    "masknet": _ranker(MaskNetConfig, _of_fields(MaskNet), has_representation=True),
    "shared_bottom": _of_outcomes(SharedBottomConfig, _of_row(SharedBottom), shared_bottom_axes),
    "mmoe": _of_outcomes(MMoEConfig, _of_row(MMoE), mmoe_axes),
    "fm": _ranker(FMConfig, _of_fields(FM), table=_WITHOUT_NORMALISATION),
    "logistic": _ranker(
        LogisticConfig, _of_fields(Logistic), table={**_WITHOUT_NORMALISATION, "weight_decay": 0.0}
    ),
}


def build_ranker(config: RankerConfig, embedding: UnifiedEmbedding, outcomes: int = 1) -> nn.Module:
    """Return the model over the one side of `embedding`, for the label and `outcomes` - 1 others.

    It turns a block into logits (B,), or (B, outcomes) where these are several.

    Raises:
        ConfigError: its options do not go with the features.
        ValueError: it predicts the label alone, and several outcomes are asked of it.
    """
    kind = RANKERS[config.kind]
    if kind.has_outcomes:
        return kind.build(config, embedding, outcomes)
    if outcomes != 1:
        raise ValueError(f"{config.kind} predicts the label alone, not {outcomes} outcomes")
    return kind.build(config, embedding)


def of_label(logits: Tensor) -> Tensor:
    """Return the label's own of a ranker's logits (B,) or (B, T), (B,)."""
    return logits if logits.ndim == 1 else logits[:, 0]
