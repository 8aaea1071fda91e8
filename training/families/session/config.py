"""The configuration of an experiment with a model of sessions."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from recsys.core.strict import StrictModel, named
from recsys.data.feature_options import Name
from recsys.features.dataset.sessions import SessionConfig
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.registry import KINDS
from recsys.features.schema import Schema
from recsys.models.session_config import SessionTransformerConfig
from recsys.training.config.retrieval import (
    FullSoftmax,
    RetrievalEvaluationConfig,
    RetrievalExperiment,
    RetrievalTrainingConfig,
    SampledSoftmax,
)
from recsys.training.families.session.self_supervision_config import SessionSelfSupervision

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
_CLASSES = [name for name, kind in KINDS.items() if issubclass(kind, Feature) and kind.has_classes]


class Gbce(StrictModel):
    """Generalised binary cross-entropy; its negatives are drawn uniformly."""

    whole_catalogue: ClassVar[bool] = False
    kind: Literal["gbce"] = "gbce"
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """0: plain binary cross-entropy, sure of itself; 1: as sure as the full softmax."""


SessionLoss = Annotated[
    Annotated[SampledSoftmax | FullSoftmax | Gbce, Field(discriminator="kind")],
    BeforeValidator(named),
]


class AttributeTask(StrictModel):
    """Say the next item's values of an item feature: its category, its brand."""

    feature: Name
    """Item feature that is predicted of the next item."""
    weight: Positive = 0.5
    """The next item's is 1; where weights are learnt, what they start from."""


class SessionTraining(StrictModel):
    """Which steps ask, what they are asked against, and what is asked besides."""

    windows: Literal["slide", "last"] = "slide"
    """Of a session longer than `model.history_length`: `slide` trains on all of it, a window at a
    time; `last` on its end alone."""
    positions: Literal["all", "last", "random_prefix"] = "all"
    """Which steps of a window ask for the next item: all, the last one, or the last one of a
    beginning of random length."""
    batch_negatives: bool = True
    """Whether the items that a batch asks for are candidates of a sampled loss."""
    frequent_negatives: Annotated[int, Field(ge=0)] = 0
    """Candidates a batch of a sampled loss that are drawn as often as the log has them,
    in addition to `training.uniform_negatives`."""
    step_dropout: Share = 0.0
    """Share of steps left out of what the model reads."""
    event_dropout: Share = 0.1
    """Share of steps that lose their event features and time, so that requests without have a
    trained answer."""
    attributes: tuple[AttributeTask, ...] = ()
    """What is asked of the next item besides itself."""
    learn_task_weights: bool = False
    """Weigh the tasks by how uncertain their answers are, learnt along."""
    self_supervision: SessionSelfSupervision = SessionSelfSupervision()
    """What is asked of sessions seen otherwise: hidden in part, cropped, reordered."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [task.feature for task in self.attributes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"attributes: two tasks ask for '{name}'")
        return self


class SessionTrainingConfig(RetrievalTrainingConfig):
    """How a model of sessions is trained."""

    loss: SessionLoss = SampledSoftmax()
    """sampled_softmax, full_softmax or gbce: its name, or a mapping with `kind` and its
    settings."""
    logq_correction: bool = True
    """Undo how often sampling draws each candidate: the model learns as if from all items."""
    session: SessionTraining = SessionTraining()
    """Which steps of a session ask, and for what."""


class SessionEvaluationConfig(RetrievalEvaluationConfig):
    """How a model of sessions is evaluated."""

    queries: Literal["users", "events"] = "users"
    """`users`: one query each, for all that the part holds of them. `events`: one query an event,
    for that item, from what came before it in its session."""

    @property
    def asked(self) -> Literal["users", "events"]:
        """What a query is."""
        return self.queries


class SessionExperiment(RetrievalExperiment):
    """The whole file."""

    sessions: SessionConfig = SessionConfig()
    model: SessionTransformerConfig
    training: SessionTrainingConfig = SessionTrainingConfig()
    evaluation: SessionEvaluationConfig = SessionEvaluationConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for problem in (*_losses(self), *_clock(self), *_attributes(self)):
            raise ValueError(problem)
        return self


def _losses(config: SessionExperiment) -> Iterator[str]:
    training, session = config.training, config.training.session
    loss = training.loss
    if isinstance(loss, Gbce) and session.frequent_negatives:
        yield (
            "training.session.frequent_negatives: gbce is about negatives that are drawn "
            "uniformly: set training.uniform_negatives instead"
        )
    if loss.whole_catalogue and session.frequent_negatives:
        yield (
            f"training.session.frequent_negatives: {loss.kind} has the whole catalogue for "
            "candidates, and none is drawn: leave it out, or set training.loss: sampled_softmax"
        )
    others = session.batch_negatives and not isinstance(loss, Gbce)
    drawn = training.uniform_negatives + session.frequent_negatives
    if not (drawn or others or loss.whole_catalogue):
        yield f"training.loss: {loss.kind} has no negatives: set training.uniform_negatives"
    if config.model.repeats is True and isinstance(loss, Gbce):
        yield (
            "model.repeats: true is for a softmax: set training.loss: sampled_softmax or "
            "full_softmax"
        )


def _clock(config: SessionExperiment) -> Iterator[str]:
    if config.model.time_gaps and config.schema_.interactions.time is None:
        yield (
            "model.time_gaps needs schema.interactions.time: without a clock no time between "
            "steps is known; declare it, or set time_gaps: false"
        )


def _attributes(config: SessionExperiment) -> Iterator[str]:
    usable, session = _usable(config.schema_), config.training.session
    masked = session.self_supervision.masked_attributes.features
    asked = [("attributes", task.feature) for task in session.attributes]
    asked += [("self_supervision.masked_attributes.features", name) for name in masked]
    for key, feature in asked:
        if feature not in usable:
            yield (
                f"training.session.{key}: '{feature}' is no categorical, "
                "multi_categorical or text feature of the items other than their id"
                + (f"; there are {', '.join(usable)}" if usable else "")
            )


def _usable(schema: Schema) -> list[str]:
    """Return the item features whose values can be asked for."""
    features = schema.features_of("items")
    return [f.name for f in features if f.has_classes and not schema.is_id(f)]
