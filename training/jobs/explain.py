"""The job behind `recsys explain`: what the model of a bundle looks at, over rows or on one."""

from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.training.explain.because import ListExplanation
from recsys.training.explain.explanation import Explanation, RowExplanation
from recsys.training.explain.wanted import EVERYTHING, Wanted
from recsys.training.families.family import Explainer
from recsys.training.families.opened import OpenedModel
from recsys.training.families.registry import family_of
from recsys.training.jobs.opening import open_model


def explain_model(path: Path, *, max_rows: int) -> Explanation:
    """Return what the model at `path` looks at, over at most `max_rows` test rows.

    Raises:
        ConfigError: models of its family are explained one item at a time, or `max_rows` is not
            positive.
        UserError: there is no bundle, or its data are no longer where they were.
    """
    if max_rows < 1:
        raise ConfigError(f"at least 1 row is needed to explain a model, got {max_rows}")
    opened, explainer = _opened(path)
    found: Explanation = explainer.model(opened, max_rows)
    return found


def explain_pair(
    path: Path, user: str, item: str, wanted: Wanted = EVERYTHING
) -> RowExplanation | ListExplanation:
    """Return what the model at `path` looks at when it scores `item` for `user`.

    wanted: filters of the list that the item is in.

    Raises:
        NotFoundError: the data have no such user or item, or the user has no row in the log.
        UserError: as `explain_model`.
    """
    opened, explainer = _opened(path)
    found: RowExplanation | ListExplanation = explainer.pair(opened, user, item, wanted)
    return found


def explain_log_row(path: Path, row: int) -> RowExplanation:
    """Return what the model at `path` looks at on a row of the log, counted from 1.

    Raises:
        NotFoundError: there is no such row, or it was left out.
        UserError: as `explain_model`.
    """
    opened, explainer = _opened(path)
    found: RowExplanation = explainer.log_row(opened, row)
    return found


def _opened(path: Path) -> tuple[OpenedModel, Explainer]:
    opened = open_model(path)
    return opened, family_of(opened.config).explain
