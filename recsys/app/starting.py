"""What a training starts from: a configuration, a run to continue, or a model that chose."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use
from recsys.core.tracking_store import store_uri
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment, start_of
from recsys.training.config.retrieval import RetrievalExperiment

with on_first_use():
    from recsys.serving.registry import resolve
    from recsys.training.jobs.final import check_can_choose, final_config
    from recsys.training.jobs.runs import bundle_of_finished, config_of_run


@dataclass(frozen=True)
class Start:
    """How a training starts, beside its configuration.

    resume: folder of a run that was stopped. warm_start: model whose weights it starts from.
    compatible_with: model whose item index its queries are to search as well. final: train on all
    rows, after the training that chooses, or with what `chosen` chose. chosen: that model.
    tracking_uri: the MLflow store. overrides: `key=value`, of the configuration of `chosen` where
    none is given. report: whether it is drawn.
    """

    resume: Path | None = None
    warm_start: str | None = None
    compatible_with: str | None = None
    final: bool = False
    chosen: str | None = None
    tracking_uri: str | None = None
    overrides: tuple[str, ...] = ()
    report: bool = True


@dataclass(frozen=True)
class Planned:
    """What is to be trained: a run to continue, or a new one; then_final: and one on all rows.

    report: whether it is drawn.
    """

    config: ExperimentConfig
    resume: Path | None = None
    then_final: bool = False
    report: bool = True


def planned(config: ExperimentConfig | None, start: Start) -> Planned:
    """Return what to train.

    Raises:
        ConfigError: what is given does not go together, or `tracking_uri` is no store's.
    """
    return replace(_planned(config, start), report=start.report)


def _planned(config: ExperimentConfig | None, start: Start) -> Planned:
    if start.resume is not None:
        return _resumed(config, start, start.resume)
    if config is None and start.chosen is None:
        raise ConfigError("give a configuration or a run to resume, one of the two")
    if start.chosen is not None and not start.final:
        raise ConfigError("the model that chose goes with final: it is for a training on all rows")
    if config is not None:
        config = located(_meeting(_tracked(config, start.tracking_uri), start.compatible_with))
    chosen = start.chosen or (None if config is None else config.final)
    if chosen is not None:
        return Planned(_final(config, start, chosen))
    assert config is not None
    if start.final:
        check_can_choose(config)
    return Planned(_started(config, start.warm_start), then_final=start.final)


def located(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration with the folders of the registered models that it names.

    Raises:
        NotFoundError: there is no such model.
    """
    return config.located(partial(resolve, uri=config.tracking.uri))


def _resumed(config: ExperimentConfig | None, start: Start, run_dir: Path) -> Planned:
    if config is not None:
        raise ConfigError("give a configuration or a run to resume, one of the two")
    if start.warm_start is not None:
        raise ConfigError("warm_start does not go with resume: a run keeps its configuration")
    if start.compatible_with is not None:
        raise ConfigError("compatible_with does not go with resume: a run keeps its configuration")
    if start.chosen is not None:
        raise ConfigError(
            "the model that chose does not go with resume: a run keeps its configuration"
        )
    if start.tracking_uri is not None:
        raise ConfigError(
            "a tracking uri does not go with resume: a run keeps its store; "
            f"`recsys sync {run_dir} --tracking-uri URI` sends all of it to another"
        )
    finished = bundle_of_finished(run_dir)
    if start.final and finished is not None:
        return Planned(final_config(None, resolve(str(finished))))
    resumed = config_of_run(run_dir)
    if start.final and resumed.final is None:
        check_can_choose(resumed)
    return Planned(resumed, run_dir, then_final=start.final and resumed.final is None)


def _final(config: ExperimentConfig | None, start: Start, chosen: str) -> ExperimentConfig:
    if start.warm_start is not None:
        raise ConfigError(
            "warm_start does not go with the model that chose: a final training starts from what "
            "that model's training started from"
        )
    if start.compatible_with is not None:
        raise ConfigError(
            "compatible_with does not go with the model that chose: a final training takes over "
            "what was measured of that model"
        )
    uri = start.tracking_uri if config is None else config.tracking.uri
    found = final_config(config, resolve(chosen, uri=uri), start.overrides)
    return _tracked(found, start.tracking_uri)


def _tracked(config: ExperimentConfig, uri: str | None) -> ExperimentConfig:
    if uri is None:
        return config
    tracking = config.tracking.model_copy(update={"uri": store_uri(uri)})
    return config.model_copy(update={"tracking": tracking})


def _meeting(config: ExperimentConfig, model: str | None) -> ExperimentConfig:
    """Return the configuration with the earlier model that is named."""
    if model is None:
        return config
    if not isinstance(config, RetrievalExperiment):
        raise ConfigError(
            f"compatible_with: a model of kind {config.model.kind} has no item vectors that meet "
            "those of an earlier one: leave it out"
        )
    return config.model_copy(update={"compatible_with": model})


def _started(config: ExperimentConfig, warm_start: str | None) -> ExperimentConfig:
    """Return the configuration with the folder of the model that it starts from."""
    reference = warm_start or start_of(config)
    if reference is None:
        return config
    if not isinstance(config, LearnedExperiment):
        raise ConfigError(
            f"warm_start: a model of kind {config.model.kind} is counted anew each time, and has "
            "nothing to start from: leave it out"
        )
    folder = resolve(reference, uri=config.tracking.uri).resolve()
    return config.model_copy(update={"warm_start": str(folder)})
