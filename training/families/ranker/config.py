"""The configuration of an experiment with a ranker."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from recsys.bundle.calibration import Kind as CalibrationKind
from recsys.core.bounds import Samples
from recsys.core.strict import listed, nearest
from recsys.embeddings.table import ADAM_RATE, Optimizer, TableConfig
from recsys.features.table_roles import Outcome
from recsys.features.tables.sources import LabelledSources
from recsys.models.rankers import RANKERS, RankerConfig
from recsys.training.config.experiment import LearnedExperiment
from recsys.training.config.sections import EvaluationConfig, TrainingConfig
from recsys.training.config.self_supervision import SelfSupervision

COMPARED_ALONE = ("lightgbm",)
"""What rankers are compared with beside each other, and no model of the engine."""


def _known_ranker(name: str) -> str:
    known = [*RANKERS, *COMPARED_ALONE]
    if name not in known:
        raise ValueError(f"'{name}' is none of {', '.join(known)}{nearest(name, known)}")
    return name


class RowSelfSupervision(SelfSupervision):
    """A loss without labels on two views of items or rows."""

    views: Literal["item", "row"] = "item"
    """Of items drawn uniformly from the catalogue, or of the batch's rows."""


class RankerTableConfig(TableConfig):
    """The table of a ranker: what published figures of rankers rest on."""

    optimizer: Optimizer = "adam"
    """Of the table; its state is a number a row, or one or two a weight. `row_wise_adagrad` by
    default for `logistic` and `fm`, at a rate of 0.1."""
    learning_rate: Annotated[float, Field(gt=0)] = ADAM_RATE
    """Of the table's optimizer; 0.05 where it is another than `adam` and `row_wise_adam`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.03
    """L2 of the table; a row that is read gets that of all steps since it was last read. 0.00001
    by default for `fm`, 0 for `logistic`."""
    init_scale: Annotated[float, Field(gt=0)] = 0.01
    """Initial weights are uniform in [-init_scale, init_scale]."""


class RankerTrainingConfig(TrainingConfig):
    """How a ranker is trained."""

    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of ids replaced by the unknown id, so that cold items and users have a meaning."""
    average_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Evaluate and keep the average of all weights over about so many of the last epochs, the
    table's among them (one copy more of it in memory); 0: the weights of the last step. It suits a
    `constant` schedule, whose weights do not settle by themselves."""

    metric: str = "auc"
    """Validation metric that decides the best checkpoint; larger is better: `auc`, of the label, or
    `auc_<name>` of a further outcome."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The model learns label * (1 - this) + this / 2; further outcomes as they are."""
    positive_weight: Annotated[float, Field(gt=0)] = 1.0
    """How much a row with label 1 counts in training; the probabilities undo it. For further
    outcomes all rows count alike."""
    negative_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the negative rows that each epoch sees, drawn again every time; the probabilities
    undo it."""
    negatives: Annotated[int, Field(ge=0)] = 0
    """For a log without a label, whose rows are all positive: other items drawn for each row,
    uniformly. The probability is then that of being the next item."""
    self_supervision: RowSelfSupervision = RowSelfSupervision()


class RankerEvaluationConfig(EvaluationConfig):
    """How a ranker is evaluated."""

    bootstrap_samples: Samples = 1000
    """Resamples of the test part for the 95 % intervals; at most 200 for intervals over rows,
    each of which passes over all of them."""
    rankers: tuple[Annotated[str, AfterValidator(_known_ranker)], ...] = (
        "logistic",
        "fm",
        "dcn",
        "mlp",
        "lightgbm",
    )
    """Rankers trained on the same rows to compare with; empty: none. `lightgbm`: boosted trees,
    where the package is installed."""


class RankerExperiment(LearnedExperiment):
    """The whole file."""

    data: LabelledSources
    embedding: RankerTableConfig = RankerTableConfig()
    """The shared table."""
    model: RankerConfig
    """Sizes and options of the model; its kind decides which."""
    training: RankerTrainingConfig = RankerTrainingConfig()
    evaluation: RankerEvaluationConfig = RankerEvaluationConfig()
    calibration: CalibrationKind = "beta"
    """How logits become probabilities, on the validation rows."""

    @model_validator(mode="after")
    def _table_of_the_kind(self) -> Self:
        """Take the table's settings that suit the model where none are given."""
        given = self.embedding.model_dump(include=self.embedding.model_fields_set)
        usual = dict(RANKERS[self.model.kind].table)
        if "optimizer" in given:  # the rate is that of the kind's own
            usual.pop("learning_rate", None)
        if not usual.keys() <= given.keys():
            self.__dict__["embedding"] = RankerTableConfig.model_validate({**usual, **given})
        return self

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What the model predicts beside the label: nothing where its kind has one output."""
        several = RANKERS[self.model.kind].has_outcomes
        return self.schema_.interactions.outcomes if several else ()

    def compared_with(self, kind: str) -> Self:
        """Return the experiment with another kind of model, of default size, to compare with.

        It is trained on the label, whatever metric decides this one's training.

        Its table is as large and learns as this one's where the same settings suit both kinds,
        else by default.
        """
        other, table = RANKERS[kind], self.embedding
        if other.table != RANKERS[self.model.kind].table:
            usual = RankerTableConfig.model_validate(other.table)
            steps = ("optimizer", "learning_rate", "weight_decay", "weight_decay_at")
            learning = (*steps, "init_scale", "betas", "eps")
            table = table.model_copy(update={name: getattr(usual, name) for name in learning})
            if table.lacking_in_fbgemm is not None:  # the run has settled which kernel it takes
                table = table.model_copy(update={"backend": usual.backend})
        model = other.config.model_validate({"kind": kind})
        training = self.training.model_copy(update={"metric": "auc"})
        return self.model_copy(update={"model": model, "embedding": table, "training": training})

    @model_validator(mode="after")
    def _rows_have_labels(self) -> Self:
        label, training = self.schema_.interactions.label, self.training
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
        if training.negatives and training.negative_rate < 1:
            raise ValueError(
                "training.negative_rate is a share of a log's negative rows, and this one has "
                "none: training.negatives says how many are drawn; leave negative_rate out"
            )
        if not self.schema_.interactions.user and not self.data.stream:
            raise ValueError(
                "schema.interactions: a log without 'user' and 'item' is read as a stream: set "
                "data.stream: true, or name both columns"
            )
        if self.data.stream and training.negative_rate < 1:
            raise ValueError(
                "training.negative_rate: a streamed log is read as it is; leave rows out in the "
                "source, or set data.stream: false"
            )
        return self

    @model_validator(mode="after")
    def _windows_do_not_tell(self) -> Self:
        if self.schema_.interactions.label is not None:
            return self
        for feature in self.schema_.relation_features:
            if not feature.is_of_user:
                raise ValueError(
                    f"feature '{feature.name}' is by {feature.owner}, which tells a model which "
                    "item was chosen where the log holds positive rows alone: give "
                    "schema.interactions.label, or set by: user"
                )
        return self

    @model_validator(mode="after")
    def _calibration_has_rows(self) -> Self:
        if self.calibration != "none" and self.split.trains_on_validation and self.final is None:
            raise ValueError(
                f"calibration: {self.calibration} is fitted on validation rows, and split.kind: "
                "none holds out none: set calibration: none, or train with --final, which takes "
                "over the calibration of an earlier run"
            )
        return self

    @model_validator(mode="after")
    def _metric_is_computed(self) -> Self:
        name = self.training.metric
        computed = ["auc", *(f"auc_{outcome.name}" for outcome in self.outcomes)]
        if name not in computed:
            raise ValueError(
                f"training.metric: '{name}' is not computed; there is {listed(computed, 'and')}"
            )
        return self

    @model_validator(mode="after")
    def _outcomes_are_predicted(self) -> Self:
        kind = self.model.kind
        if not self.schema_.interactions.outcomes:
            return self
        if not RANKERS[kind].has_outcomes:
            able = [name for name, one in RANKERS.items() if one.has_outcomes]
            raise ValueError(
                f"schema.interactions.outcomes: model.kind: {kind} predicts the label alone; "
                f"{listed(able, 'and')} predict further outcomes: set one of them, or leave the "
                "outcomes out"
            )
        if self.training.negative_rate < 1:
            raise ValueError(
                "training.negative_rate: a share of the rows whose label is 0 is no such share of "
                "other outcomes, whose probabilities it would distort: leave it out, or leave out "
                "schema.interactions.outcomes"
            )
        return self

    @model_validator(mode="after")
    def _streams_have_no_ids(self) -> Self:
        """Refuse to drop ids of a streamed log; the share that is so by default becomes 0."""
        training = self.training
        if not self.data.stream or not training.id_dropout:
            return self
        if training.id_dropout != type(training).model_fields["id_dropout"].default:
            raise ValueError(
                "training.id_dropout is about the ids of tables of items and users, and all "
                "features of a streamed log are columns of the interactions: leave it out, or set "
                "data.stream: false"
            )
        without = training.model_copy(update={"id_dropout": 0.0})
        return self.model_copy(update={"training": without})

    @model_validator(mode="after")
    def _views_are_there(self) -> Self:
        settings, kind = self.training.self_supervision, self.model.kind
        if settings.kind == "none":
            return self
        if not RANKERS[kind].has_representation:
            able = [name for name, one in RANKERS.items() if one.has_representation]
            raise ValueError(
                f"training.self_supervision is for {listed(able, 'and')}, which have a "
                f"representation to compare, and model.kind is {kind}: set its kind to none"
            )
        if self.data.stream and settings.views == "item":
            raise ValueError(
                "training.self_supervision.views: item draws from the items table, which a "
                "streamed log does not have: set views: row"
            )
        return self
