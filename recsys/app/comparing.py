"""Trained models compared on the same queries or rows: what `recsys compare` does."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.app.arguments import checked
from recsys.app.configuration import Given, config_given
from recsys.app.models import Reference, folder_of, reference_of
from recsys.app.progress import printed
from recsys.core.errors import ConfigError
from recsys.core.remote.path import is_remote, path_at

if TYPE_CHECKING:
    from recsys.training.evaluation.comparison import Comparison


@checked
def compare(
    models: Sequence[Reference],
    *,
    on: Given | None = None,
    metric: str | None = None,
    report: str | Path | None = None,
    tracking_uri: str | None = None,
    quiet: bool = True,
) -> "Comparison":
    """Compare trained models on the same queries or rows, the others with the first.

    Args:
        models: two or more; see `load`. Models that recommend, or rankers.
        on: the configuration whose data, split and evaluation all get; None: that of the first
            model.
        metric: decides which model is better; None: `training.metric` of that configuration.
        report: HTML file to write; None: none is kept.
        tracking_uri: MLflow store.
        quiet: print no progress.

    Returns:
        The comparison: print it; `to_frame()`, `gain(name)`, `warnings`.

    Raises:
        UserError: there is no such model, one is given twice, their data are no longer where they
            were, or the models do not answer the same queries.

    Example:
        >>> compared = recsys.compare([run, other])
        >>> sorted(compared.to_frame()["slice"].unique())[0]
        'all'
    """
    return compared_on(
        models,
        on=None if on is None else config_given(on),
        source=str(on) if isinstance(on, str | Path) else "the given configuration",
        metric=metric,
        report=report,
        tracking_uri=tracking_uri,
        quiet=quiet,
    )


def compared_on(
    models: Sequence[Any],
    *,
    on: Any = None,
    source: str = "",
    data_of: str | None = None,
    metric: str | None = None,
    report: str | Path | None = None,
    tracking_uri: str | None = None,
    quiet: bool = True,
) -> "Comparison":
    """Compare models on an experiment's configuration that is called `source` in messages.

    data_of: whose configuration is taken where `on` is None; None: the first model's.
    """
    from recsys.training.jobs.compare import compare_bundles
    from recsys.training.reports.comparison import write_comparison

    if len(models) < 2:
        raise ConfigError("compare needs two models or more")
    if report is not None and not (is_remote(report) or Path(report).parent.is_dir()):
        raise ConfigError(f"{report}: there is no folder {Path(report).parent} for the report")
    folders = [folder_of(model, tracking_uri) for model in models]
    bundles = named([*map(reference_of, models)], folders)
    with printed(quiet):
        found = compare_bundles(bundles, on=on, source=source, data_of=data_of, metric=metric)
    if report is not None:
        write_comparison(path_at(report), found)
    return found


def named(references: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """Return short names of models with the folders of their bundles.

    A registered model is called as in the registry, a run by its folder, any other by its id.

    Raises:
        ConfigError: one is given twice.
    """
    given: dict[str, str] = {}
    for reference, folder in zip(references, folders, strict=True):
        if folder.name in given:
            raise ConfigError(
                f"{given[folder.name]} and {reference} are the same model ({folder.name}): give "
                "another one"
            )
        given[folder.name] = reference
    names = [_short(*one) for one in zip(references, folders, strict=True)]
    return {
        f"{name} ({folder.name[:8]})" if names.count(name) > 1 else name: folder
        for name, folder in zip(names, folders, strict=True)
    }


def _short(reference: str, folder: Path) -> str:
    registered = re.fullmatch(r"models:/(.+)", reference)
    if registered is not None:
        return registered[1]
    path = path_at(reference)
    if not path.is_dir():
        return reference.removeprefix("runs:/")[:8]
    # A run's folder holds the folder of its bundles.
    run = folder.resolve().parent.parent
    return run.name if (run / "config.yaml").is_file() else folder.name[:8]
