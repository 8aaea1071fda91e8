"""What a trained model counts, taken anew from a newer log: what `recsys recount` does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recsys.app.arguments import checked
from recsys.app.model import Model
from recsys.app.models import Reference, folder_of
from recsys.app.progress import printed
from recsys.core.folders import check_folder
from recsys.core.remote.path import path_at


@dataclass(frozen=True)
class Recounted:
    """A model with new counts.

    Attributes:
        path: the folder that was named; it stands for the model, as that of a run does.
        bundle: folder of the model, in it.
        parent: id of the model that it came from.
        rows: rows of the log that were counted.
        items: items that have one, of `catalogue`.
        catalogue: items of the model.
        unknown_rows: rows that were left out, of items that the model does not know.
        unknown_items: how many such items there are.
        first_unknown: one of them; None where there is none.
        words: what else was found, by name.
    """

    path: Path
    bundle: Path
    parent: str
    rows: int
    items: int
    catalogue: int
    unknown_rows: int
    unknown_items: int
    first_unknown: Any
    words: Mapping[str, str]

    @property
    def model(self) -> Model:
        """The model, verified."""
        return Model(self.bundle)

    def facts(self) -> dict[str, Any]:
        """Return everything by name, as plain values."""
        found = {**vars(self), **self.words}
        del found["words"]
        return {n: str(one) if isinstance(one, Path) else one for n, one in found.items()}


@checked
def recount(
    model: Reference,
    interactions: Any,
    output: str | Path,
    *,
    rows: Literal["training", "all"] = "training",
    settings: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
    quiet: bool = True,
) -> Recounted:
    """Write a model again with what it counts taken from a newer log; nothing is trained.

    A model of sessions or a two-tower keeps its weights, and its memory of pairs is counted anew; a
    plain model is fitted anew. Which items there are stays.

    Args:
        model: see `load`.
        interactions: the whole newer log, a path or a data frame.
        output: folder to make, which then stands for the model as that of a run does.
        rows: `training`: those that the model's split trains on, so that it can be evaluated and
            compared; `all`: every row, for a model that goes into service.
        settings: other policies for the log than in training: {"policies.bad_times": "drop"}.
        tracking_uri: MLflow store.
        quiet: print no progress.

    Raises:
        UserError: the model holds no counts, the log does not fit it, or `output` holds a model.

    Example:
        >>> recsys.recount(run, "log.parquet", "renewed").unknown_rows
        0
    """
    from recsys.features.tables.frames import path_of
    from recsys.training.jobs.recount import recount as count_anew

    folder = check_folder(path_at(output), "a model")
    source = folder_of(model, tracking_uri)
    with printed(quiet):
        log = path_of(interactions, "interactions")
        done = count_anew(source, log, folder, rows=rows, settings=settings)
    return Recounted(folder, **vars(done))
