"""What the configuration of every experiment holds; each family of models has a class of its own.

A family's class (`recsys.training.families.*.config`) has the sections and keys that mean something
to its models, and no others: what cannot be combined cannot be written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, field_validator

from recsys.core.remote.path import is_remote
from recsys.core.strict import StrictModel
from recsys.embeddings.table import TableConfig
from recsys.features.dataset.split import SplitConfig
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, Sources
from recsys.models.kind import ModelConfig
from recsys.training.config.sections import (
    EvaluationConfig,
    FittingConfig,
    TrackingConfig,
    TrainingConfig,
)


class ExperimentConfig(StrictModel):
    """The sections that every family has, of models that learn and of those that count."""

    model_config = ConfigDict(protected_namespaces=())

    data: Sources
    policies: Policies = Policies()
    schema_: Schema = Field(alias="schema")
    split: SplitConfig = SplitConfig()
    model: ModelConfig
    training: FittingConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig = TrackingConfig()
    final: str | None = None
    """Model whose training chose the settings: this one is trained with them on all rows, for as
    many epochs as were best, and nothing is measured. A bundle or run folder (`recsys train --final
    --from` also takes models:/name@alias)."""
    output: str = "runs"
    """Folder that runs (checkpoints, bundles, reports) are written to; or the address of one in a
    store, as s3://bucket/runs."""
    cache: str | None = None
    """Folder of this machine that keeps encoded data between runs, for logs that take long to
    read."""
    tune: dict[str, Any] = Field(default_factory=dict)
    """What `recsys tune` searches (`recsys.training.search.space`); empty: what suits the model."""

    @field_validator("cache")
    @classmethod
    def _is_here(cls, given: str | None) -> str | None:
        if given is not None and is_remote(given):
            raise ValueError(
                f"{given} is in a store, and encoded data are read from the disk as they are: "
                "name a folder of this machine"
            )
        return given

    def settled(self, folder: Path) -> Self:
        """Return the experiment with what it names in other files, below `folder`, written out."""
        return self

    def located(self, find: Callable[[str], Path]) -> Self:
        """Return the experiment with the folders of the trained models that it is made of.

        find: returns the folder of the bundle of a path or a reference to a registered model.
        """
        return self


class LearnedExperiment(ExperimentConfig):
    """The sections of families whose models learn, step by step, with one embedding table."""

    embedding: TableConfig = TableConfig()
    training: TrainingConfig
    warm_start: str | None = None
    """Model whose weights, scales and known ids the training starts from: a bundle or run folder
    (`recsys train --warm-start` also takes models:/name@alias)."""
    keep_optimizer_state: bool = True
    """Leave the state of the table's optimizer in the bundle, for a later warm start."""


def start_of(config: ExperimentConfig) -> str | None:
    """Return the model that an experiment starts from; None: it starts from scratch."""
    return config.warm_start if isinstance(config, LearnedExperiment) else None


def passes(config: ExperimentConfig) -> int:
    """Return how often the training rows are passed over at most."""
    return config.training.epochs if isinstance(config, LearnedExperiment) else 1
