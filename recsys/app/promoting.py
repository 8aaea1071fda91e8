"""An alias in the registry moved to another version: at once, or if the version is better."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from recsys.app.arguments import checked
from recsys.app.comparing import compared_on
from recsys.app.configuration import Given, config_given
from recsys.app.progress import printed
from recsys.core.errors import ConfigError, NotBetterError, NotFoundError

if TYPE_CHECKING:
    from recsys.metrics.intervals import Difference
    from recsys.training.evaluation.comparison import Comparison

LOG = logging.getLogger(__name__)
Margin = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Promotion:
    """What a promotion did.

    Attributes:
        name: the registered model.
        version: the version that holds the alias now.
        alias: which alias.
        before: the version that held it before; None: there was none.
        gain: how much better the version is than that one, where they were compared.
        comparison: all that was found then.
    """

    name: str
    version: int
    alias: str
    before: int | None = None
    gain: "Difference | None" = None
    comparison: "Comparison | None" = field(default=None, repr=False)


@checked
def promote(
    name: str,
    version: int,
    *,
    alias: str = "champion",
    if_better: str | None = None,
    margin: Margin = 0.0,
    on: Given | None = None,
    tracking_uri: str | None = None,
    quiet: bool = True,
) -> Promotion:
    """Point an alias at a version, after its bundle was verified.

    With `if_better` the version is compared with the one that holds the alias, on the same queries
    or rows. It is promoted if it is better by `margin` or more and the 95 % interval of the paired
    difference is above zero; with a margin below zero, if the interval is above the margin. Where
    nobody holds the alias, it is promoted at once. In the place of a version that was trained on
    all rows, the model that chose its settings is compared.

    Args:
        name: registered model.
        version: its version.
        alias: what is moved.
        if_better: the metric by which it has to be better, as in "ndcg_at_10" or "auc"; None: it
            is promoted in any case, with a warning if a plain model was better than it.
        margin: the least difference, in units of the metric; below 0: the most that is lost.
        on: configuration whose data, split and evaluation both get; None: that of the version.
        tracking_uri: MLflow store; None: MLFLOW_TRACKING_URI, else mlflow.db in this folder.
        quiet: print no progress.

    Returns:
        The version that held the alias before, and what was found.

    Raises:
        NotBetterError: it is not better; the alias stays.
        UserError: there is no such version, or the two cannot be compared.

    Example:
        >>> recsys.promote("shop", 1, if_better="ndcg_at_10", tracking_uri=store).before
        1
    """
    from recsys.serving.registry import holder_of, resolve
    from recsys.serving.registry import promote as move_alias

    if if_better is None and (margin or on is not None):
        raise ConfigError("promote: margin and on go with if_better, the metric that decides")
    folder = resolve(f"models:/{name}/{version}", tracking_uri)
    before = holder_of(name, alias, uri=tracking_uri)
    found, gain = None, None
    with printed(quiet):
        if if_better is None:
            _warn_of_baselines(name, version, folder)
        elif before is None:
            LOG.info(f"no version of {name} holds @{alias}: promoted without a comparison")
        elif before != version:
            found, gain = _compared(name, version, before, if_better, on, tracking_uri)
            _check_better(name, version, before, gain, if_better, margin)
    move_alias(name, version, alias, uri=tracking_uri)
    return Promotion(name, version, alias, before, gain, found)


def _warn_of_baselines(name: str, version: int, folder: Path) -> None:
    from recsys.bundle.directory import Bundle
    from recsys.features.bundle.measured import Kept

    kept = Kept.of(Bundle.open(folder))
    chosen = kept.chosen_by
    doubt, whose = kept.doubt, f"models:/{name}/{version}"
    if chosen is not None:
        doubt, whose = chosen.kept.doubt, f"{whose}: of {chosen.words}, which chose its settings"
    if doubt is not None:
        LOG.warning(f"{whose}: {doubt}")


def _compared(
    name: str, version: int, before: int, metric: str, on: Given | None, tracking_uri: str | None
) -> "tuple[Comparison, Difference]":
    """Return the comparison of two versions, and how much better the new one is.

    In the place of a version that was trained on all rows is the model that chose its settings.
    """
    models = [f"models:/{name}/{one}" for one in (before, version)]
    compared = [_with_figures(model, tracking_uri) for model in models]
    if compared[0].folder.name == compared[1].folder.name:
        said = f"{models[1]} is the same model as version {before}, which holds the alias"
        if any(one.chosen for one in compared):
            said = (
                f"{models[1]} has the settings of version {before}, which holds the alias, and no "
                "figures of its own: if it was trained on newer rows, promote it without comparison"
            )
        raise NotBetterError(said, metric=metric, gain=0.0)
    source = "the given configuration" if on is not None else ""
    found = compared_on(
        [one.reference for one in compared],
        on=None if on is None else config_given(on),
        source=str(on) if isinstance(on, str | Path) else source,
        data_of=compared[1].name,
        metric=metric,
        tracking_uri=tracking_uri,
    )
    for warning in found.warnings:
        LOG.warning(warning)
    return found, found.gain(compared[1].name)


@dataclass(frozen=True)
class _Compared:
    """What is compared of a version; chosen: it is the model that chose the version's settings."""

    reference: str
    folder: Path
    name: str
    chosen: bool


def _with_figures(model: str, tracking_uri: str | None) -> _Compared:
    """Return a version, or the model that chose its settings where it was trained on all rows.

    Raises:
        NotFoundError: that model is not where it was, and is not registered.
    """
    from recsys.app.comparing import named
    from recsys.bundle.directory import Bundle
    from recsys.features.bundle.measured import Kept
    from recsys.serving.registry import resolve, version_of

    folder, reference = resolve(model, tracking_uri), model
    chosen = Kept.of(Bundle.open(folder)).chosen_by
    if chosen is not None:
        place = _place_of(folder, chosen.model_id) or version_of(chosen.model_id, tracking_uri)
        if place is None:
            raise NotFoundError(
                f"{model} was trained on all rows and has no test figures; {chosen.words}, which "
                "chose its settings and would be compared in its place, is neither in its folder "
                "nor registered: register it, or promote without --if-better"
            )
        folder, reference = resolve(place, tracking_uri), place
        LOG.info(
            f"{model} was trained on all rows: compared is {chosen.words}, which chose its settings"
        )
    (name,) = named([reference], [folder])
    return _Compared(reference, folder, name, chosen is not None)


def _place_of(folder: Path, model_id: str) -> str | None:
    """Return the folder of the model that chose, as a final model names it; None: it is gone."""
    from recsys.training.jobs.opening import open_model

    while folder.name != model_id:
        named = open_model(folder).config.final
        if named is None or not Path(named).is_dir():
            return None
        folder = Path(named)
    return str(folder)


def _check_better(
    name: str, version: int, before: int, gain: "Difference", metric: str, margin: float
) -> None:
    """Refuse a version that is not better, or not surely.

    Raises:
        NotBetterError: it is not.
    """
    if gain.mean >= margin and gain.low > min(margin, 0):
        return
    why = "its interval is not above zero"
    if margin < 0:
        why = f"its interval is not above {margin:g}"
    elif gain.mean < margin:
        why = f"it has to be {margin:g} or more" if margin else "it is not better"
    raise NotBetterError(
        f"models:/{name}/{version} is not promoted: its gain over version {before} in {metric} is "
        f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], and {why}",
        metric=metric,
        gain=gain.mean,
        low=gain.low,
        high=gain.high,
        margin=margin,
    )
