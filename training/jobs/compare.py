"""The job behind `recsys compare`: trained models on the same test, with intervals."""

from collections.abc import Mapping
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.features.bundle.measured import Kept
from recsys.features.dataset.split import TEST
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.evaluation.comparison import Comparison
from recsys.training.families.comparing import CommonTest, NamedModel
from recsys.training.families.registry import family_of
from recsys.training.jobs.opening import open_model


def compare_bundles(
    bundles: Mapping[str, Path],
    *,
    on: ExperimentConfig | None = None,
    source: str = "",
    data_of: str | None = None,
    metric: str | None = None,
) -> Comparison:
    """Compare the models of bundles on the test part of one data set, the others with the first.

    Args:
        bundles: name -> folder, two or more.
        on: the configuration whose data, split and evaluation all get; None: that of a model.
        source: what `on` is called in messages and in what was found.
        data_of: the name of that model; None: the first one.
        metric: decides which model is better; None: `training.metric` of that configuration.

    Raises:
        ConfigError: fewer than two models, one of them twice, there is no such metric or no test
            part, or the models do not answer the same.
        NotFoundError: no bundle, or its data are no longer where they were.
        IntegrityError: a file of a bundle is not what was written.
    """
    models = tuple(NamedModel(name, open_model(path)) for name, path in bundles.items())
    _check_distinct(models)
    config, given = on, None
    if on is None:
        given = next(one for one in models if data_of in (None, one.name))
        config, source = given.opened.config, f"the data of {given.name}"
    assert config is not None
    _check_test_part(config, source, given)
    comparer = family_of(config).comparer
    for model in models:
        own = family_of(model.opened.config).comparer
        if own is not comparer:
            other = source if on is not None else models[0].name
            raise ConfigError(
                f"{model.name} ({model.opened.config.model.kind}) {own.answers}, and {other} "
                f"({config.model.kind}) {comparer.answers}: they have no metric in common; compare "
                "models that answer alike"
            )
    metric = metric or config.training.metric
    test = comparer.settled(CommonTest(config, source, metric, fixed=on is None))
    asked = tuple(family_of(model.opened.config).ask(model, test) for model in models)
    return comparer.compare(asked, test)


def _check_test_part(config: ExperimentConfig, source: str, given: NamedModel | None) -> None:
    """Refuse a configuration without test rows; `given`: the model that it is of.

    Raises:
        ConfigError: it has none.
    """
    if TEST in config.split.parts:
        return
    which = "kind: none" if config.split.kind == "none" else "test: 0"
    chosen = None if given is None else Kept.of(given.opened.bundle).chosen_by
    remedy = "give a configuration with one"
    if given is not None:
        remedy = "give another configuration with one (--on), of rows that no model was trained on"
    if chosen is not None:
        remedy += f", or compare {chosen.words} in its place, which chose its settings"
    raise ConfigError(f"{source}: split.{which} leaves no test part to compare on: {remedy}")


def _check_distinct(models: tuple[NamedModel, ...]) -> None:
    if len(models) < 2:
        raise ConfigError("compare needs two models or more")
    name_of: dict[str, str] = {}
    for model in models:
        other = name_of.setdefault(model.model_id, model.name)
        if other != model.name:
            raise ConfigError(
                f"{other} and {model.name} are the same model ({model.model_id}): give another one"
            )
