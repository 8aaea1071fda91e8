"""What makes a model of an earlier one: `recsys export --delta-from`, `recsys patch`."""

from pathlib import Path
from typing import Any

from recsys.app.arguments import checked
from recsys.app.model import Model
from recsys.app.models import Reference, folder_of
from recsys.core.folders import check_folder
from recsys.core.remote.path import here

_WHY = "a delta is made and applied on this machine"


@checked
def export_delta(
    model: Reference, base: Reference, out: str | Path, *, tracking_uri: str | None = None
) -> dict[str, Any]:
    """Write what makes a model of an earlier one: the rows of its table that differ, and the rest.

    A training with `warm_start` leaves the rows of the table that it does not read as they were.

    Args:
        model: see `load`.
        base: the earlier model, such as the one that `model` was trained on from.
        out: folder to make.
        tracking_uri: MLflow store.

    Returns:
        What was written: `bytes`, `bytes_of_the_model`, and how many rows of each tensor differ.

    Raises:
        UserError: the two are the same model, or `out` exists.

    Example:
        >>> recsys.export_delta(newer, run, "delta")["target"]
        'delta'
    """
    from recsys.serving.export.delta import export_delta as write

    folder = check_folder(here(out, "out", _WHY), "a delta")
    return write(folder_of(base, tracking_uri), folder_of(model, tracking_uri), folder)


@checked
def patch(
    base: Reference, delta: str | Path, output: str | Path, *, tracking_uri: str | None = None
) -> Model:
    """Make a model of an earlier one and a delta: the same bits as the model that was exported.

    Args:
        base: the earlier model.
        delta: folder that `export_delta` made.
        output: folder to make, which then stands for the model as that of a run does.
        tracking_uri: MLflow store.

    Raises:
        IntegrityError: the delta is of another model than `base`, or damaged.
        UserError: there is no such model or delta, or `output` holds a model.

    Example:
        >>> recsys.patch(run, "delta", "patched").path.name == newer.bundle.name
        True
    """
    from recsys.serving.export.delta import patch as apply

    folder = check_folder(here(output, "output", _WHY), "a model")
    return Model(apply(folder_of(base, tracking_uri), here(delta, "delta", _WHY), folder))
