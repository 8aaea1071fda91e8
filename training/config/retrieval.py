"""The sections of an experiment whose model retrieves, whatever its family."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from recsys.core.bounds import Drawn
from recsys.core.strict import StrictModel, nearest
from recsys.features.dataset.split import RetrievalSplitConfig
from recsys.models.retrieval_kinds import RetrievalConfig
from recsys.retrieval.index.registry import AUTO, BACKENDS
from recsys.training.config.baselines import BaselineName
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.config.sections import EvaluationConfig, PositiveInt, TrainingConfig


class SampledSoftmax(StrictModel):
    """Softmax over the batch's candidates, corrected for how they were sampled."""

    whole_catalogue: ClassVar[bool] = False
    kind: Literal["sampled_softmax"] = "sampled_softmax"


class FullSoftmax(StrictModel):
    """Softmax over the whole catalogue, encoded at every step: for small catalogues."""

    whole_catalogue: ClassVar[bool] = True
    kind: Literal["full_softmax"] = "full_softmax"


class RetrievalTrainingConfig(TrainingConfig):
    """How a model that retrieves is trained."""

    metric: str = "ndcg_at_20"
    """Validation metric that decides the best checkpoint; larger is better."""
    uniform_negatives: Drawn = 512
    """Extra candidates a batch, drawn uniformly from `negative_items`; none are drawn where the
    whole catalogue is among the candidates."""
    negative_items: Literal["catalogue", "trained"] = "catalogue"
    """`trained`: items without a training row are no negatives. For catalogues that hold items
    before anybody could interact with them, so that the model does not learn to rank them
    last."""
    towards: Literal["targets", "rows"] = "targets"
    """What is learnt to find where `schema.interactions.targets` says which rows are asked for:
    these alone, or `rows`, all of them, each with its weight; only targets are evaluated either
    way. Where purchases are the targets among many views, try `rows` first: with it a two-tower was
    better in all settings on two made shops (validation NDCG@20, gap of an hour, all rows counting
    alike, one seed: 0.189 to 0.141 and 0.234 to 0.167)."""
    max_validation_queries: PositiveInt = 10_000
    """Validation queries at most, drawn once."""


class RetrievalEvaluationConfig(EvaluationConfig):
    """How lists of items are evaluated."""

    ks: tuple[PositiveInt, ...] = (10, 20, 50, 100)
    """Lengths of the lists that metrics are computed of."""
    filter_seen: bool = True
    """Leave out the user's earlier items, from the lists and from what counts as relevant."""
    baselines: tuple[BaselineName, ...] = ("auto",)
    """Models fitted on the training rows to compare with; `auto`: all that suit the
    model and that data and installation allow, and the report says why one is missing."""
    popularity_window_days: Annotated[float, Field(gt=0)] = 30
    """How long before the last training row `popularity_recent` counts."""
    ease_max_items: PositiveInt = 20_000
    """Largest catalogue for `ease`, which needs its square x 4 bytes and its cube of work."""
    max_queries: PositiveInt = 50_000
    """Test queries at most, drawn once."""

    @property
    def asked(self) -> Literal["users", "events"]:
        """What a query is: a user for all that a part holds of them, or an event for its item."""
        return "users"


def _known_index(kind: str) -> str:
    known = [AUTO, *BACKENDS]
    if kind not in known:
        raise ValueError(f"should be one of {', '.join(known)}{nearest(kind, known)}")
    return kind


class IndexConfig(StrictModel):
    """The index in the bundle: exact up to 200,000 items of width 64."""

    kind: Annotated[str, AfterValidator(_known_index)] = AUTO
    """`auto`: `exact`, of larger catalogues `ivf`. By faiss: `flat`, `ivf`, `ivf_pq`, `rabitq`,
    `sq8`, `hnsw`; with the extra of the same name `hnswlib`, `scann`; with `ann` `usearch`."""
    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    """An approximate index below this recall against exact search fails the export."""
    threads: PositiveInt = 1
    """That build an index. With more than one, two identical trainings may write different ones."""


class RelevanceConfig(StrictModel):
    """Where lists end: `keep_recall` or `precision` is reached on the validation queries."""

    keep_recall: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the recall of whole lists that is to stay: the lists are as short as that allows."""
    precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of hits among all items of all lists that is to be reached: the lists are as long as
    that allows."""
    k: PositiveInt = 20
    """Length of the whole lists that the threshold is fitted on."""
    map: Literal["auto", "query", "score"] = "auto"
    """What the chance of a hit is read from. `score`: the score alone, so that the threshold is one
    of the score. `query`: also how much else of the catalogue is near the query, and how long its
    history is. `auto`: `query` where that is better on validation queries that it was not fitted
    on, beyond the error of measurement."""

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if (self.keep_recall is None) == (self.precision is None):
            raise ValueError("relevance needs 'keep_recall' or 'precision', and not both")
        return self


class RetrievalExperiment(LearnedExperiment):
    """The settings shared by all experiments with models that learn to retrieve."""

    split: RetrievalSplitConfig = RetrievalSplitConfig()
    model: RetrievalConfig
    training: RetrievalTrainingConfig
    evaluation: RetrievalEvaluationConfig
    index: IndexConfig = IndexConfig()
    compatible_with: str | None = None
    """Earlier model whose item index the queries of this one are to search, too: all vectors are
    rotated so that items lie nearest to where they were, and what the earlier index then finds is
    measured. A bundle or run folder, a run id or models:/name@alias."""
    compatible_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Least recall of the queries on the earlier index, in units of what the earlier model's own
    have there; below it the model does not claim to be compatible."""

    def located(self, find: Callable[[str], Path]) -> Self:
        """Return the experiment with the folder of the earlier model that it is to meet."""
        if self.compatible_with is None:
            return self
        return self.model_copy(
            update={"compatible_with": str(find(self.compatible_with).resolve())}
        )

    @model_validator(mode="after")
    def _something_measures_compatibility(self) -> Self:
        if self.compatible_with is not None and self.split.kind == "none" and self.final is None:
            raise ValueError(
                "compatible_with is measured on rows that are held out, and split.kind: none holds "
                "out none: leave it out, or train with --final, which takes over what was measured "
                "of an earlier run"
            )
        return self

    relevance: RelevanceConfig | None = None
    """Where lists end: what is least likely to be relevant is left out of them, which makes them
    shorter than asked; null: they are as long as asked."""

    @model_validator(mode="after")
    def _rows_are_positive(self) -> Self:
        refuse_labels(self)
        refuse_windows_of_items(self)
        return self

    @model_validator(mode="after")
    def _relevance_has_queries(self) -> Self:
        if self.relevance is not None and self.split.trains_on_validation and self.final is None:
            raise ValueError(
                "relevance is fitted on validation rows that are not trained on, and the split "
                "leaves none: leave relevance out, or train with --final, which takes over where "
                "relevance ends from an earlier run"
            )
        return self


def to_meet(config: ExperimentConfig) -> str | None:
    """Return the earlier model whose index a model is to search; None: none is named."""
    return config.compatible_with if isinstance(config, RetrievalExperiment) else None


def refuse_labels(config: ExperimentConfig) -> None:
    """Refuse what is about labelled rows, for a model that retrieves.

    Raises:
        ValueError: the log has a label, or a feature is derived from one.
    """
    kind, schema = config.model.kind, config.schema_
    if schema.interactions.label is not None:
        raise ValueError(
            f"model.kind: {kind} learns from interactions and does not use "
            "schema.interactions.label: keep the positive rows with schema.interactions.where "
            "instead"
        )
    for feature in schema.derived_features:
        raise ValueError(
            f"feature '{feature.name}': kind: {feature.kind} is for rankers, and model.kind is "
            f"{kind}"
        )


def refuse_windows_of_items(config: ExperimentConfig) -> None:
    """Refuse windows that are not of the user alone, for a model with vectors of items.

    Raises:
        ValueError: which, and what to do.
    """
    for feature in config.schema_.relation_features:
        if not feature.is_of_user:
            raise ValueError(
                f"feature '{feature.name}' is by {feature.owner}: a model of kind "
                f"{config.model.kind} has one vector an item, at all times and for all users: set "
                "by: user, or rank its candidates in a pipeline with model.rank, which reads it"
            )
