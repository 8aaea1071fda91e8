"""The Python API of experiments: what `recsys init`, `check`, `train`, `tune` and `sync` do.

Tables are paths or data frames (pandas, polars, Arrow). Arguments are checked before any work is
done. What a caller can put right is a `recsys.UserError`.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import InstanceOf

from recsys.app.arguments import Count, Minutes, Seed, checked
from recsys.app.configuration import Config, Given, config_given
from recsys.app.models import Reference, reference_of
from recsys.app.progress import printed
from recsys.app.run import Run
from recsys.app.tuned import Tuned
from recsys.core.errors import ArgumentError, ConfigError
from recsys.core.events import Listener

if TYPE_CHECKING:
    from recsys.features.propose.tables import Inference
    from recsys.training.families.family import Findings


@checked
def init(
    *tables: Any,
    dataset: str | None = None,
    protocol: str | None = None,
    out: str | Path | None = None,
    folder: str | Path = ".",
    force: bool = False,
) -> Config:
    """Look at tables and return a configuration for them.

    Args:
        tables: an interaction log and, in any order, tables of items, users or others: paths or
            data frames. Which is which is found out from their columns. With `dataset` the folder
            with its files.
        dataset: name of a public data set; its tables are written to the folder `dataset` beside
            the configuration.
        protocol: how papers split it; the first that it has where none is named.
        out: YAML file to write, too.
        folder: where data frames are kept, in `.recsys_cache/frames` below it.
        force: overwrite `out`.

    Raises:
        ConfigError: no table is a log, `out` exists, or no data set has that name.
        DataError: a table is empty or cannot be read.
        NotFoundError: a path does not exist.

    Example:
        >>> config = recsys.init(log, items, users)
        >>> config.experiment.model.kind
        'two_tower'
    """
    from recsys.core.strict_yaml import read_yaml
    from recsys.features.propose.tables import infer
    from recsys.features.tables.frames import FRAMES, path_of

    if not tables:
        raise ConfigError("recsys.init() needs at least one table, the interaction log")
    if "" in [one for one in tables if isinstance(one, str)]:
        raise ArgumentError("recsys.init(): the path of a table is empty; give a file or a folder")
    if out is not None and Path(out).exists() and not force:
        raise ConfigError(f"{out} exists; give force=True to overwrite it, or another out")
    place = Path(folder).resolve() if out is None else Path(out).resolve().parent
    if dataset is not None:
        found = _public(dataset, protocol, tables, place)
    elif protocol is not None:
        raise ConfigError("a protocol is of a public data set: name that with dataset")
    else:
        frames = Path(folder) / FRAMES
        paths = [Path(path_of(one, f"table{n + 1}", frames)) for n, one in enumerate(tables)]
        found = infer(paths, relative_to=place)
    if out is not None:
        Path(out).write_text(found.yaml)
    keys = read_yaml(found.yaml, source="configuration")
    return Config(keys, folder=place, unsure=found.unsure, summary=found.summary, text=found.yaml)


def _public(name: str, protocol: str | None, given: tuple[Any, ...], place: Path) -> "Inference":
    """Return what is proposed for a public data set, whose tables are written below `place`."""
    from recsys.features.propose.tables import infer
    from recsys.features.public_data.open import protocol_of, tables_of

    how = protocol_of(name, protocol)
    if len(given) != 1 or not isinstance(given[0], str | Path):
        raise ConfigError(f"{name}: give one path, the folder with the files of the data set")
    written = tables_of(name, Path(given[0]), place / name, protocol)
    paths = [Path(os.path.relpath(path)) for path in written.paths]  # the folder may move
    found = infer(paths, relative_to=place, split=how.split, where=how.where)
    return replace(found, unsure=(*written.said, *found.unsure))


@checked
def check(config: Given, *, html: str | Path | None = None) -> "Findings":
    """Read and check everything that training would read, without training.

    Args:
        config: what would be trained.
        html: page to write, with charts of the data.

    Returns:
        What was found: print it; `warnings`, `lines()`, `to_json()`.

    Raises:
        UserError: what training would raise on the same configuration and data.

    Example:
        >>> recsys.check(config).rows["interactions"]
        4000
    """
    from recsys.app.starting import located
    from recsys.training.config.file import dump_config
    from recsys.training.jobs.check import preflight

    given = located(config_given(config))
    found = preflight(given)
    if html is not None:
        from recsys.training.reports.data_page import write_data_page

        text = dump_config(given)
        write_data_page(Path(html), found, title="The data", config_text=text)
    return found


@checked
def train(
    config: Given | None = None,
    *,
    resume: str | Path | None = None,
    warm_start: Reference | None = None,
    final: bool | Reference = False,
    workers: Count = 1,
    report: bool = True,
    tracking_uri: str | None = None,
    quiet: bool = False,
    listener: Listener | None = None,
) -> Run:
    """Train, evaluate, bundle and track one model.

    A final training is one on all rows, test rows among them, with what an earlier training chose
    on validation rows: the epochs, the weight of the memory of pairs, the calibration, how a
    pipeline joins. Nothing is held out, so nothing is evaluated.

    Args:
        config: what to train; None with `resume`, or with the model that `final` names.
        resume: folder of a run that was stopped.
        warm_start: model whose weights to start from.
        final: True: train, and then finally, with what that chose (`chosen` of the result is the
            first run). A model: train finally alone, with what its training chose; a `config`
            beside it may name other data, and has to have the same settings.
        workers: processes on this machine that train together.
        report: whether it is drawn, which is most of the time of a training on few rows.
        tracking_uri: MLflow store; None: that of the configuration.
        quiet: print no progress.
        listener: called with each `recsys.StepDone` and `recsys.PointLogged`; what it raises ends
            the training. Of a training in one process.

    Raises:
        UserError: configuration or data are wrong, or a loss was not finite.

    Example:
        >>> run = recsys.train(config.with_(epochs=1), quiet=True)
        >>> run.report.name
        'report.html'
    """
    from recsys.app.starting import Start, planned
    from recsys.app.training import train_planned

    start = Start(
        resume=None if resume is None else Path(resume),
        warm_start=None if warm_start is None else reference_of(warm_start),
        final=final is not False,
        chosen=None if isinstance(final, bool) else reference_of(final),
        tracking_uri=tracking_uri,
        report=report,
    )
    plan = planned(None if config is None else config_given(config), start)
    if workers > 1 and listener is not None:
        raise ConfigError("listener: several workers are processes of their own; leave it out")
    listeners = () if listener is None else (listener,)
    run = train_planned(plan, workers, quiet=quiet, listeners=listeners)
    assert run is not None, "one process is its own first rank"
    return run


@checked
def tune(
    config: Given,
    *,
    trials: Count | None = None,
    minutes: Minutes | None = None,
    space: Mapping[str, Any] | None = None,
    metric: str | None = None,
    storage: str | Path = "tune.db",
    name: str = "recsys",
    seed: Seed = 0,
    quiet: bool = False,
) -> Tuned:
    """Search better settings, by the validation part.

    Args:
        config: trial 0.
        trials: of the search in all, earlier calls included.
        minutes: of this call; whichever of both ends first.
        space: keys to search, as in {"model.dim": [32, 64]}; None: what suits the model.
        metric: to maximise; None: `training.metric`.
        storage: SQLite file that keeps the trials; the same call continues where it stopped.
        name: of the search in that file.
        seed: of the proposals.
        quiet: print no progress.

    Returns:
        The best configuration, `config` of the result, and every trial.

    Raises:
        ConfigError: neither trials nor minutes are given, or a key cannot be searched.
    """
    from recsys.training.search.output import lines
    from recsys.training.search.space import space_of, with_values
    from recsys.training.search.tuning import Budget, search

    if trials is None and minutes is None:
        raise ConfigError("recsys.tune() needs trials, minutes or both: when is it to end?")
    settings = config_given(config)
    if metric is not None:
        training = settings.training.model_copy(update={"metric": metric})
        settings = settings.model_copy(update={"training": training})
    searched = space_of(settings, settings.tune if space is None else space, "space")
    budget = Budget(trials, minutes)
    with printed(quiet):
        found = search(settings, searched, budget, storage=Path(storage), name=name, seed=seed)
    best = with_values(settings, found.best.values)
    return Tuned(Config.of(best), found, tuple(lines(found)))


@checked
def tune_embedding(
    config: Given,
    *,
    lookups: Count | None = None,
    epochs: Count = 2,
    max_lookups: Count = 4,
    quiet: bool = False,
) -> Tuned:
    """Find out which features of a ranker deserve how many lookups in the shared table.

    Args:
        config: of a ranker.
        lookups: table reads a row for all features together; None: two a feature.
        epochs: of the search, and of each training that compares plans.
        max_lookups: most lookups of one feature.
        quiet: print no progress.

    Returns:
        The configuration of the best plan, `config` of the result, and the plans compared.

    Raises:
        ConfigError: the model is no ranker, or the options do not go with it.
    """
    from recsys.training.embedding.output import lines, planned
    from recsys.training.jobs.study import study_embedding

    settings = config_given(config)
    with printed(quiet):
        found = study_embedding(settings, lookups=lookups, epochs=epochs, max_lookups=max_lookups)
    return Tuned(Config.of(planned(settings, found)), found, tuple(lines(settings, found)))


@checked
def sync(run: InstanceOf[Run] | str | Path, *, tracking_uri: str | None = None) -> dict[str, int]:
    """Deliver to MLflow what a run could not deliver while the server was down."""
    from recsys.training.search.tracked import deliver_search

    folder = run.path if isinstance(run, Run) else Path(run)
    delivered = deliver_search(folder, uri=tracking_uri)
    return {"sent": delivered.sent, "left": delivered.left}
