"""The configuration of an experiment with a two-tower."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.core.strict import StrictModel
from recsys.features.batches.examples import Kind as ExampleKind
from recsys.models.two_tower_config import TwoTowerConfig
from recsys.training.config.baselines import BaselineName, about_sessions
from recsys.training.config.retrieval import (
    RetrievalEvaluationConfig,
    RetrievalExperiment,
    RetrievalTrainingConfig,
    SampledSoftmax,
)
from recsys.training.config.sections import PositiveInt
from recsys.training.config.self_supervision import SelfSupervision
from recsys.training.families.two_tower.losses_config import TwoTowerLoss


class HardNegatives(StrictModel):
    """Items that the model would show to a batch's users, mined during training."""

    count: Annotated[int, Field(ge=0)] = 0
    """Searched for each query; of all that are found, up to 64 x `count` join the batch."""
    every: Annotated[int, Field(ge=1)] = 100
    """Steps between two snapshots of the item vectors that are searched."""


class TowerSelfSupervision(SelfSupervision):
    """A loss without labels on two views of items or users."""

    views: Literal["item", "query", "both"] = "item"
    """Of items drawn uniformly from the catalogue, of users (`query`), drawn uniformly as well, or
    of items and users (`both`)."""


class TwoTowerTrainingConfig(RetrievalTrainingConfig):
    """How a two-tower is trained."""

    loss: TwoTowerLoss = SampledSoftmax()
    """sampled_softmax, full_softmax, bce, bpr, cosine_contrastive or metric: its name, or a mapping
    with `kind` and its settings."""
    examples: ExampleKind = "rows"
    """`rows`, each with the earlier items of its user; or `users`, each cut at a random row, with
    several items after it. `batch_size` counts either."""
    positives: PositiveInt = 50
    """Most items that one example of `users` is to find."""
    cut_history: bool = True
    """Of `users`: false, and the items to find stay in the history, as graph models train."""
    history_gap_minutes: Annotated[float, Field(ge=0)] = 0
    """Rows less than this older than the one to find are no history of it. A purchase follows its
    own view by minutes: a model that saw the view learns to repeat it, and nothing for lists that
    are made the night before."""
    mask_taken: bool = False
    """All training items of a user are excluded from their negatives."""
    logq_correction: bool | Literal["streaming"] = True
    """Undo how often sampling draws each candidate: the model learns as if from all items.
    `streaming`: as often as estimated from the batches so far, not from the log's counts."""
    cached_negatives: Annotated[int, Field(ge=0)] = 0
    """Candidates of past batches, as they were encoded then, that are negatives again."""
    hard_negatives: HardNegatives = HardNegatives()
    """Negatives that are mined with the current model."""
    self_supervision: TowerSelfSupervision = TowerSelfSupervision()

    @model_validator(mode="after")
    def _rows_have_their_history(self) -> Self:
        if self.examples == "rows" and not self.cut_history:
            raise ValueError(
                "training.cut_history is about whole users, and training.examples is rows, which "
                "have what came before them for a history: set examples: users, or leave it out"
            )
        most = type(self).model_fields["positives"].default
        if self.examples == "rows" and self.positives != most:
            raise ValueError(
                "training.positives is about whole users, and training.examples is rows, each of "
                "which finds one item: set examples: users, or leave it out"
            )
        if self.history_gap_minutes and not self.cut_history:
            raise ValueError(
                "training.history_gap_minutes is about rows before the one to find, and "
                "cut_history: false leaves all rows in the history: leave one of them out"
            )
        return self


class TwoTowerEvaluationConfig(RetrievalEvaluationConfig):
    """How a two-tower is evaluated: a query a user."""

    @field_validator("baselines")
    @classmethod
    def _without_sessions(cls, names: tuple[BaselineName, ...]) -> tuple[BaselineName, ...]:
        why = about_sessions(names)
        if why is not None:
            raise ValueError(why)
        return names


class TwoTowerExperiment(RetrievalExperiment):
    """The whole file."""

    model: TwoTowerConfig = TwoTowerConfig()
    training: TwoTowerTrainingConfig = TwoTowerTrainingConfig()
    evaluation: TwoTowerEvaluationConfig = TwoTowerEvaluationConfig()
    calibration: Literal["none", "logistic", "isotonic"] = "none"
    """How scores become the probability of an interaction within a period like the
    validation part, on the rows of that part."""

    @model_validator(mode="after")
    def _loss_fits_the_geometry(self) -> Self:
        loss, geometry = self.training.loss.kind, self.model.geometry
        if geometry != "sphere" and loss == "cosine_contrastive":
            raise ValueError(
                f"training.loss: {loss} is about cosines, and model.geometry: {geometry} "
                "compares otherwise: set geometry: sphere, or another loss"
            )
        return self

    @model_validator(mode="after")
    def _a_gap_has_a_clock(self) -> Self:
        if self.training.history_gap_minutes and self.schema_.interactions.time is None:
            raise ValueError(
                "training.history_gap_minutes needs schema.interactions.time: without a clock no "
                "row is known to be older by minutes; declare the time, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _windows_end_at_the_row(self) -> Self:
        for feature in self.schema_.relation_features:
            if self.training.history_gap_minutes:
                raise ValueError(
                    f"feature '{feature.name}': a window ends just before its row, and would show "
                    "what training.history_gap_minutes hides: leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _smoothing_has_its_neighbours(self) -> Self:
        if not self.model.smoothing.rounds:
            return self
        if self.training.self_supervision.kind != "none":
            raise ValueError(
                "model.smoothing has no neighbours for the views of training.self_supervision: "
                "set its kind to none, or rounds to 0"
            )
        if self.training.negative_items == "trained":
            raise ValueError(
                "model.smoothing has the whole catalogue as candidates, and training.negative_items"
                ": trained leaves items out: set negative_items: catalogue, or rounds to 0"
            )
        return self

    @model_validator(mode="after")
    def _scores_are_those_of_the_calibration(self) -> Self:
        if self.calibration != "none" and self.split.kind == "none" and self.final is None:
            raise ValueError(
                f"calibration: {self.calibration} is fitted on validation rows, and split.kind: "
                "none holds out none: set calibration: none, or train with --final, which takes "
                "over the calibration of an earlier run"
            )
        if self.calibration != "none" and self.model.memory.kind != "none":
            raise ValueError(
                "calibration is of the scores of the towers, and model.memory adds to them: set "
                "model.memory: none, or calibration: none"
            )
        return self

    @property
    def every_item_each_step(self) -> bool:
        """Whether the whole catalogue is encoded at every training step."""
        return self.training.loss.whole_catalogue or self.model.smoothing.rounds > 0
