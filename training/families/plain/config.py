"""The configuration of an experiment with a plain model, which counts and solves."""

from typing import Literal, Self

from pydantic import model_validator

from recsys.features.dataset.sessions import SessionConfig
from recsys.features.dataset.split import RetrievalSplitConfig
from recsys.plain.registry import PLAIN, PlainModelConfig
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.retrieval import RetrievalEvaluationConfig, refuse_labels
from recsys.training.config.sections import FittingConfig, PositiveInt


class PlainFittingConfig(FittingConfig):
    """What a plain model is compared by; it is fitted in one pass."""

    metric: str = "ndcg_at_20"
    """Validation metric that `recsys tune` maximises; larger is better."""
    max_validation_queries: PositiveInt = 10_000
    """Validation queries at most, drawn once."""


class PlainEvaluationConfig(RetrievalEvaluationConfig):
    """How a plain model is evaluated."""

    queries: Literal["users", "events"] = "users"
    """`users`: one query each, for all that the part holds of them. `events`: one query an event,
    for that item, from what came before it in its session; `sessions` has to be there."""

    @property
    def asked(self) -> Literal["users", "events"]:
        """What a query is."""
        return self.queries


class PlainExperiment(ExperimentConfig):
    """The whole file."""

    split: RetrievalSplitConfig = RetrievalSplitConfig()
    sessions: SessionConfig | None = None
    """How a user's events are cut into sessions, `{}` at the least; then the model is fitted on
    them and answers after the steps of the current one. null: on all events of a user."""
    model: PlainModelConfig
    """Settings of the model; its kind decides which."""
    training: PlainFittingConfig = PlainFittingConfig()
    evaluation: PlainEvaluationConfig = PlainEvaluationConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse_labels(self)
        for feature in self.schema_.relation_features:
            raise ValueError(
                f"feature '{feature.name}': kind: {feature.kind} is for models that read features, "
                f"and model.kind is {self.model.kind}: leave it out"
            )
        kind = PLAIN[self.model.kind]
        if kind.of_seen and self.evaluation.filter_seen:
            raise ValueError(
                f"model.kind: {self.model.kind} recommends what was seen, and "
                "evaluation.filter_seen leaves it out: set evaluation.filter_seen: false"
            )
        if self.evaluation.queries == "events" and self.sessions is None:
            raise ValueError(
                "evaluation.queries: events asks within sessions, and there are none: set "
                "sessions: {}, or queries: users"
            )
        return self
