"""One experiment as one strict tree: its sections, and what of them goes together."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from recsys.bundle.calibration import Kind as CalibrationKind
from recsys.core.strict import StrictModel
from recsys.embeddings.table import TableConfig
from recsys.features.dataset.sessions import SessionConfig
from recsys.features.dataset.split import SplitConfig
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, Sources
from recsys.models.rankers import RANKERS, RankerConfig
from recsys.models.retrieval import RetrievalConfig
from recsys.models.session import SessionTransformerConfig
from recsys.models.two_tower import TwoTowerConfig
from recsys.training.config.sections import (
    EvaluationConfig,
    IndexConfig,
    TrackingConfig,
    TrainingConfig,
)
from recsys.training.config.session_checks import check_sessions


class ExperimentConfig(StrictModel):
    """The whole file."""

    model_config = ConfigDict(protected_namespaces=())

    data: Sources
    policies: Policies = Policies()
    schema_: Schema = Field(alias="schema")
    split: SplitConfig = SplitConfig()
    sessions: SessionConfig = SessionConfig()
    model: Annotated[
        TwoTowerConfig | SessionTransformerConfig | RankerConfig, Field(discriminator="kind")
    ] = TwoTowerConfig()
    embedding: TableConfig = TableConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    index: IndexConfig = IndexConfig()
    calibration: CalibrationKind | Literal["logistic"] = "none"
    """How scores become probabilities, on the validation rows: of a ranker `temperature` or
    `isotonic`; of a two-tower `logistic` or `isotonic`, the probability that a user takes an item
    within a period like the validation part."""
    warm_start: str | None = None
    """Model whose weights, scales and known ids the training starts from: a bundle or run folder
    (`recsys train --warm-start` also takes models:/name@alias)."""
    keep_optimizer_state: bool = True
    """Leave the state of the table's optimizer in the bundle, for a later warm start."""
    tracking: TrackingConfig = TrackingConfig()
    output: str = "runs"
    """Folder that runs (checkpoints, bundles, reports) are written to."""
    cache: str | None = None
    """Folder that keeps encoded data between runs, for logs that take long to read."""
    tune: dict[str, Any] = Field(default_factory=dict)
    """What `recsys tune` searches (`recsys.training.search.space`); empty: what suits the model."""

    @classmethod
    def completed(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """A model is a two-tower unless it says otherwise; rankers have a metric of their own."""
        model, training = raw.get("model", {}), raw.get("training", {})
        if isinstance(model, dict):
            model = {"kind": "two_tower", **model}
            raw = {**raw, "model": model}
            if model["kind"] in RANKERS and isinstance(training, dict):
                raw["training"] = {"metric": "auc", **training}
        return raw

    @model_validator(mode="after")
    def _model_fits_the_log(self) -> "ExperimentConfig":
        ranker, label = self.model.kind in RANKERS, self.schema_.interactions.label
        if ranker:
            self._check_rows_of_a_ranker()
        if not ranker and label is not None:
            raise ValueError(
                f"model.kind: {self.model.kind} learns from what was taken and has no use for "
                "schema.interactions.label: keep the positive rows with schema.interactions.where "
                "instead"
            )
        if not ranker and self.schema_.derived_features:
            feature = self.schema_.derived_features[0]
            raise ValueError(
                f"feature '{feature.name}': kind: {feature.kind} is for rankers, and model.kind is "
                f"{self.model.kind}"
            )
        if not self.schema_.interactions.user and not self.data.stream:
            raise ValueError(
                "schema.interactions: a log without 'user' and 'item' is read as a stream: set "
                "data.stream: true, or name both columns"
            )
        if self.data.stream and not ranker:
            raise ValueError(f"data.stream is for rankers, and model.kind is {self.model.kind}")
        return self

    def _check_rows_of_a_ranker(self) -> None:
        label, training = self.schema_.interactions.label, self.training
        if self.split.join_validation:
            raise ValueError(
                f"split.join_validation is for retrieval, and model.kind is {self.model.kind}, "
                "whose best epoch and calibration come from the validation rows"
            )
        if self.split.cold_items is not None:
            raise ValueError(
                f"split.cold_items is for retrieval, and model.kind is {self.model.kind}: leave it "
                "out"
            )
        if label is None and not training.negatives:
            raise ValueError(
                f"model.kind: {self.model.kind} ranks by labels: give schema.interactions.label; "
                "where all rows of the log are positive, set training.negatives"
            )
        if label is not None and training.negatives:
            raise ValueError(
                "training.negatives draws negative rows for a log without any; this one has a "
                "label: training.negative_rate takes a share of its negative rows"
            )
        if self.data.stream and training.negative_rate < 1:
            raise ValueError(
                "training.negative_rate: a streamed log is read as it is; leave rows out in the "
                "source, or set data.stream: false"
            )

    @model_validator(mode="after")
    def _retrieval_fits_together(self) -> "ExperimentConfig":
        loss, model = self.training.loss.kind, self.model
        check_sessions(self)
        if not isinstance(model, TwoTowerConfig):
            return self
        if model.geometry != "sphere" and loss == "cosine_contrastive":
            raise ValueError(
                f"training.loss: {loss} is about cosines, and model.geometry: {model.geometry} "
                "compares otherwise: set geometry: sphere, or another loss"
            )
        if self.training.examples == "rows" and not self.training.cut_history:
            raise ValueError(
                "training.cut_history is about whole users, and training.examples is rows, which "
                "have what came before them for a history: set examples: users, or leave it out"
            )
        if model.smoothing.rounds and self.training.self_supervision.kind != "none":
            raise ValueError(
                "model.smoothing has no neighbours for the views of training.self_supervision: "
                "set its kind to none, or rounds to 0"
            )
        if model.smoothing.rounds and self.training.negative_items == "trained":
            raise ValueError(
                "model.smoothing has the whole catalogue as candidates, and training.negative_items"
                ": trained leaves items out: set negative_items: catalogue, or rounds to 0"
            )
        return self

    @model_validator(mode="after")
    def _calibration_fits_the_model(self) -> "ExperimentConfig":
        kind = self.calibration
        if self.model.kind in RANKERS and kind == "logistic":
            raise ValueError(
                "calibration: logistic is for a two_tower, whose scores are no logits; a ranker "
                "takes temperature or isotonic"
            )
        if self.model.kind not in RANKERS and kind == "temperature":
            raise ValueError(
                "calibration: temperature is for rankers, whose scores are logits; a two_tower "
                "takes logistic or isotonic"
            )
        return self

    @model_validator(mode="after")
    def _self_supervision_fits_the_model(self) -> "ExperimentConfig":
        self.training.self_supervision.check(self.model.kind, streamed=self.data.stream)
        return self

    @property
    def every_item_each_step(self) -> bool:
        """Whether the whole catalogue is encoded at every training step."""
        smoothed = isinstance(self.model, TwoTowerConfig) and self.model.smoothing.rounds > 0
        return self.training.loss.kind == "full_softmax" or smoothed

    @property
    def of_sessions(self) -> bool:
        """Whether the model reads sessions step by step."""
        return self.model.kind == "session"

    @property
    def retrieval(self) -> RetrievalConfig:
        """The model's part, where the model retrieves."""
        assert isinstance(self.model, RetrievalConfig)
        return self.model

    @property
    def two_tower(self) -> TwoTowerConfig:
        """The model's part, where the model is a two-tower."""
        assert isinstance(self.model, TwoTowerConfig)
        return self.model
