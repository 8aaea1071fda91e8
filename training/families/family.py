"""What a family of models is to the jobs that train, check, evaluate, explain and search.

A family brings the class of its experiments' configuration and functions of it. Jobs find it by
`model.kind` (`recsys.training.families.registry`) and know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureLayout
from recsys.features.tables.checked import Tables
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.config.ranges import Space

with on_first_use():
    from recsys.embeddings.diagnostics import Diagnosis, FeatureValues
    from recsys.features.bundle.model_bundle import ModelBundle
    from recsys.training.engine.loop import Task
    from recsys.training.engine.ranks import World
    from recsys.training.engine.warm_start import Earlier
    from recsys.training.evaluation.evaluate import ExtraRankers
    from recsys.training.evaluation.results import ModelEvaluation
    from recsys.training.explain.wanted import Wanted
    from recsys.training.families.comparing import CommonTest, Comparer, NamedModel
    from recsys.training.families.encoded import Encoded, Encoding
    from recsys.training.families.opened import OpenedModel
    from recsys.training.families.recounting import Renew

C = TypeVar("C", bound=ExperimentConfig)
L = TypeVar("L", bound=LearnedExperiment)


@dataclass(frozen=True)
class Given:
    """What a training is given besides its configuration.

    world: the ranks that train together. earlier: the model that it starts from. extra_rankers:
    more rankers for the evaluation. train: trains another model, from its keys, in a folder,
    with or without a report, and returns its bundle; for models that are made of others. report:
    whether one of this model is drawn. is_source: whether it is trained for such a model, which has
    said everything of the data. chosen: the model whose training chose the settings, where this one
    is trained with them on all rows. meets: the earlier model whose item index is to be searched.
    """

    world: World = field(default_factory=World)
    earlier: Earlier | None = None
    extra_rankers: ExtraRankers | None = None
    train: Callable[[dict[str, Any], Path, bool], Path] | None = None
    report: bool = True
    is_source: bool = False
    chosen: ModelBundle | None = None
    meets: OpenedModel | None = None


@dataclass(frozen=True)
class Finished:
    """What a training leaves: how the model did, folder of the bundle, file of the report.

    There is no such file where none was to be drawn.
    """

    evaluation: ModelEvaluation
    bundle: Path
    report: Path
    warnings: tuple[str, ...] = ()


class OpenedData(Protocol):
    """Data that are read for a training."""

    @property
    def given(self) -> Given:
        """What the training was given besides its configuration."""

    @property
    def facts(self) -> dict[str, str]:
        """How much data there is and what was left out, as text."""

    @property
    def fingerprint(self) -> str:
        """A hash of the data."""

    def under(self, config: Any) -> Self:
        """Return the same on the same data with other settings of the model and its training."""


class FittedJob(OpenedData, Protocol):
    """The fitting of a model that counts and solves: what is fitted, evaluated and written."""

    @property
    def config(self) -> ExperimentConfig:
        """The experiment."""

    def fit(self, run_dir: Path) -> Any:
        """Return the model, fitted on the training rows; run_dir: for what it keeps meanwhile.

        Raises:
            ConfigError: it cannot be, on such rows and this machine.
        """

    def validate(self, model: Any) -> dict[str, float]:
        """Return the metrics of the model on the validation queries; none where there are none."""

    def finish(self, run_dir: Path, model: Any) -> Finished:
        """Evaluate the model, write bundle and report."""


class Job(OpenedData, Protocol):
    """A training whose data are read: what is trained, evaluated and written."""

    @property
    def config(self) -> LearnedExperiment:
        """The experiment."""

    @property
    def layouts(self) -> tuple[FeatureLayout, ...]:
        """The sides of the model's embedding."""

    def task(self) -> Task[Any]:
        """Return what the loop trains."""

    def feature_values(self) -> list[FeatureValues]:
        """Return the values of each sparse feature in the training rows."""

    def finish(
        self,
        run_dir: Path,
        model: Any,
        history: list[dict[str, float]],
        embedding: Diagnosis | None,
    ) -> Finished:
        """Evaluate the model, write bundle and report."""


class Findings(Protocol):
    """What `recsys check` found."""

    def lines(self) -> list[str]:
        """Return it as text."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""


@dataclass(frozen=True)
class Explainer:
    """What `recsys explain` can say of the models of a family.

    model: over at most so many test rows. pair: for a user and an item, by their ids, and filters
    of the list; those of models that give none refuse them. log_row: on a row of the log, counted
    from 1.
    """

    model: Callable[[OpenedModel, int], Any]
    pair: Callable[[OpenedModel, str, str, Wanted], Any]
    log_row: Callable[[OpenedModel, int], Any]

    @classmethod
    def of_lists(cls, pair: Callable[[OpenedModel, str, str, Wanted], Any]) -> Explainer:
        """Return that of models that give lists, which are explained one item at a time."""
        return cls(model=_refuse_all_but_pairs, pair=pair, log_row=_refuse_all_but_pairs)


def _refuse_all_but_pairs(opened: OpenedModel, _asked: int) -> Any:
    raise ConfigError(
        f"{opened.bundle.path}: a model of kind {opened.config.model.kind} gives lists, which are "
        "explained one item at a time: give a user and an item (--user, --item)"
    )


def _fit_any(_config: Any, _tables: Tables, _part: NDArray[np.int8]) -> None:
    """Refuse nothing: such models are trained on any log."""


def _nothing_below(_config: Any) -> Sequence[dict[str, Any]]:
    """Such models are made of no others."""
    return ()


@dataclass(frozen=True)
class Family(Generic[C]):
    """One family of models.

    Attributes:
        plural: what its models are called in messages.
        kinds: the values of `model.kind`.
        experiment: the class of its configuration.
        check: refuses settings that the type allows and the machine or the metric does not.
        inspect: reads the data and finds what training would trip over (`recsys check`).
        evaluate: evaluates a bundle again, and writes a report.
        evaluation: the class of what `evaluate` returns.
        show: prints it as a table.
        ask: reads the data of a comparison as a model does, and has it answer.
        comparer: compares what models of this family and of others answered.
        space: what `recsys tune` searches by default.
        explain: what `recsys explain` says of its models.
        fits: refuses a model that cannot be trained on the training rows of a log, given with the
            part of each event (E,), before one is trained.
        check_rows: refuses the same, and parts that it cannot be stopped by or evaluated on.
            Training and `recsys check` call it on the same rows.
        study_embedding: `recsys tune embedding`; None where it has no meaning.
        recount: `recsys recount`; None where a model holds no counts of its own.
        encode: `recsys prepare`, where other data than tables in memory may be read; None:
            `recsys.training.families.encoded.encode_tables`.
        below: the keys of the experiments on the same log that training one of this family trains.
        evaluated_once: keys of `evaluation` for what is done at the end of a training alone.
    """

    plural: str
    kinds: tuple[str, ...]
    experiment: type[C]
    check: Callable[[C], None]
    inspect: Callable[[C], Findings]
    evaluate: Callable[[OpenedModel, Path], ModelEvaluation]
    evaluation: type[ModelEvaluation]
    show: Callable[[Any], None]
    ask: Callable[[NamedModel, CommonTest], Any]
    comparer: Comparer
    space: Callable[[C], Space]
    explain: Explainer
    check_rows: Callable[[C, Tables, NDArray[np.int8]], None]
    fits: Callable[[C, Tables, NDArray[np.int8]], None] = _fit_any
    study_embedding: Callable[..., Any] | None = None
    recount: Renew | None = None
    encode: Callable[[C, Encoding], Encoded] | None = None
    below: Callable[[C], Sequence[dict[str, Any]]] = _nothing_below
    evaluated_once: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LearnedFamily(Family[L]):
    """A family of models that learn; open: reads the data for a training."""

    open: Callable[[L, Given], Job]


@dataclass(frozen=True, kw_only=True)
class FittedFamily(Family[C]):
    """A family of models that count and solve; open: reads the data to fit one on."""

    open: Callable[[C, Given], FittedJob]
