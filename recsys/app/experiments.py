"""The Python API of experiments: what `recsys init`, `check`, `train`, `tune` and `sync` do.

Tables are paths or data frames (pandas, polars, Arrow). Arguments are checked before any work is
done. What a caller can put right is a `recsys.UserError`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import InstanceOf

from recsys.app.arguments import Count, Minutes, Seed, checked
from recsys.app.configuration import Config, Given, config_given
from recsys.app.models import Reference, reference_of
from recsys.app.progress import printed
from recsys.app.run import Run
from recsys.app.tuned import Tuned
from recsys.core.errors import ConfigError, NotDeliveredError
from recsys.core.events import Listener
from recsys.core.remote.path import here, is_remote, path_at


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
        resume=None if resume is None else path_at(resume),
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
    trials_in = here(storage, "storage", "a database cannot be there")
    with printed(quiet):
        found = search(settings, searched, budget, storage=trials_in, name=name, seed=seed)
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
def sync(run: InstanceOf[Run] | str | Path, *, tracking_uri: str | None = None) -> dict[str, Any]:
    """Deliver to MLflow what a run could not deliver while the server was down.

    A run in a store has to be finished: it is fetched for that.

    Args:
        run: a run, or its folder.
        tracking_uri: MLflow store; None: that of the run. Another one gets the whole run.

    Returns:
        "sent": records that arrived; "left": 0; "skipped": of the last 20 records that the store
        refused, or whose file is gone: why.

    Raises:
        NotDeliveredError: the store did not take all of it.
    """
    from recsys.training.engine.run_home import brought, leave_work, send_home
    from recsys.training.jobs.runs import bundle_of_finished
    from recsys.training.search.tracked import deliver_search

    place = run.path if isinstance(run, Run) else path_at(run)
    if is_remote(place) and bundle_of_finished(place) is None:
        raise ConfigError(f"{place}: this run is not finished: continue it with --resume")
    folder = brought(place)
    found = deliver_search(folder, uri=tracking_uri)
    send_home(folder)
    if is_remote(place):
        leave_work(folder)
    if found.left:
        raise NotDeliveredError(
            f"{folder}: MLflow took {found.sent} records, {found.left} are left ({found.why}); run "
            "the same command again when it answers",
            sent=found.sent,
            left=found.left,
        )
    return {"sent": found.sent, "left": found.left, "skipped": list(found.problems)}
