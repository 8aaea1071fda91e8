"""What a configuration of sessions may not ask for, and what only it may."""

from collections.abc import Iterator
from typing import Protocol

from recsys.features.dataset.sessions import SessionConfig
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.registry import KINDS
from recsys.features.schema import Schema
from recsys.models.rankers import RankerConfig
from recsys.models.session import SessionTransformerConfig
from recsys.models.two_tower import TwoTowerConfig
from recsys.training.config.sections import EvaluationConfig, TrainingConfig
from recsys.training.config.sessions import SessionTraining

_LOSSES = ("sampled_softmax", "full_softmax", "gbce")
_CLASSES = [name for name, kind in KINDS.items() if issubclass(kind, Feature) and kind.has_classes]


class Experiment(Protocol):
    """The sections that have to go together."""

    @property
    def schema_(self) -> Schema:
        """The roles of the columns, and the features."""

    @property
    def sessions(self) -> SessionConfig:
        """How sessions are cut."""

    @property
    def model(self) -> TwoTowerConfig | SessionTransformerConfig | RankerConfig:
        """The model's sizes."""

    @property
    def training(self) -> TrainingConfig:
        """The optimisation."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """How it is judged."""

    @property
    def calibration(self) -> str:
        """How scores become probabilities."""


def check_sessions(config: Experiment) -> None:
    """Refuse what does not go together.

    Raises:
        ValueError: the key, why, and what to do.
    """
    problems = _of_sessions if config.model.kind == "session" else _of_others
    for problem in problems(config):
        raise ValueError(problem)


def _of_others(config: Experiment) -> Iterator[str]:
    kind, training = config.model.kind, config.training
    if training.loss.kind == "gbce":
        yield f"training.loss: gbce is for model.kind: session, and model.kind is {kind}"
    only = {
        "evaluation.queries: events": config.evaluation.queries == "events",
        "sessions.inactivity_minutes": config.sessions.inactivity_minutes is not None,
        "training.session": training.session != SessionTraining(),
    }
    for key, asked in only.items():
        if asked:
            yield f"{key} is for model.kind: session, and model.kind is {kind}: leave it out"


def _of_sessions(config: Experiment) -> Iterator[str]:
    training, model, schema = config.training, config.model, config.schema_
    assert isinstance(model, SessionTransformerConfig)
    loss, session = training.loss.kind, training.session
    if loss not in _LOSSES:
        yield f"training.loss: a model of sessions learns by {', '.join(_LOSSES)}, not by {loss}"
    if loss == "gbce" and session.frequent_negatives:
        yield (
            "training.session.frequent_negatives: gbce is about negatives that are drawn "
            "uniformly: set training.uniform_negatives instead"
        )
    no_uniform = training.uniform_negatives + session.frequent_negatives == 0
    if no_uniform and (loss == "gbce" or (loss != "full_softmax" and not session.batch_negatives)):
        yield f"training.loss: {loss} has no negatives: set training.uniform_negatives"
    if model.repeats and loss == "gbce":
        yield "model.repeats is for a softmax: set training.loss: sampled_softmax or full_softmax"
    if config.calibration != "none":
        yield "calibration is for rankers and two-towers, and model.kind is session: leave it out"
    if model.time_gaps and schema.interactions.time is None:
        yield (
            "model.time_gaps needs schema.interactions.time: without a clock no time between "
            "steps is known; declare it, or set time_gaps: false"
        )
    yield from _of_two_towers_alone(config)
    yield from _attributes(session, schema)


def _of_two_towers_alone(config: Experiment) -> Iterator[str]:
    training = config.training
    asked = {
        "examples": training.examples != "rows",
        "mask_taken": training.mask_taken,
        "cached_negatives": training.cached_negatives > 0,
        "hard_negatives": training.hard_negatives.count > 0,
        "logq_correction: streaming": training.logq_correction == "streaming",
        "self_supervision": training.self_supervision.kind != "none",
    }
    for key, is_on in asked.items():
        if is_on:
            yield f"training.{key} is not for model.kind: session: leave it out"


def _attributes(session: SessionTraining, schema: Schema) -> Iterator[str]:
    features = {f.name: f for f in schema.features_of("items")}
    usable = [n for n, f in features.items() if f.has_classes and not schema.is_id(f)]
    masked = session.self_supervision.masked_attributes.features
    asked = [("attributes", task.feature) for task in session.attributes]
    asked += [("self_supervision.masked_attributes.features", name) for name in masked]
    for key, feature in asked:
        if feature not in usable:
            yield (
                f"training.session.{key}: '{feature}' is no {', '.join(_CLASSES[:-1])} or "
                f"{_CLASSES[-1]} feature of the items other than their id"
                + (f"; there are {', '.join(usable)}" if usable else "")
            )
