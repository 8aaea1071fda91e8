"""What one kind of plain model is to those who fit, keep and ask models without knowing it.

Letters: E training rows, n_items the catalogue.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys.models.kind import Kind, ModelConfig
from recsys.plain.interactions import Baseline
from recsys.retrieval.follow import Matrix


class PlainConfig(ModelConfig):
    """The settings of a plain model."""

    history_length: ClassVar[int] = 1 << 31
    """It reads whole histories."""


@dataclass(frozen=True)
class Counted:
    """What plain models are fitted on: the training rows, sequence after sequence, each in order.

    user, sequence, item: (E,) each; a sequence is a session, or where the log is not cut into any,
    all of a user. time: (E,) microseconds, where the log has a clock. attributes: of the items,
    (n_items, V) CSR of ones each; empty where they are not asked for. weight: (E,) float32, above 0
    and at most 1, how much a row counts; None: 1 each.
    """

    user: NDArray[np.int32]
    sequence: NDArray[np.int64]
    item: NDArray[np.int32]
    time: NDArray[np.int64] | None
    num_items: int
    attributes: tuple[Matrix, ...] = ()
    weight: NDArray[np.float32] | None = None


def no_obstacle(_config: Any, _rows: Counted, _queries: int | None) -> None:
    """Return None: such a model can be fitted on any log, and answers at once."""
    return None


@dataclass(frozen=True)
class PlainKind(Kind):
    """The entry of a registry, whose key is the `kind` of the settings.

    model: a dataclass of arrays and numbers, which scores. fit: settings and training rows to such
    a model. why_not: why it cannot be fitted on such rows on this machine, or would answer so many
    queries for too long (None: it is not known how many ask), and what to do; None: it can. parts:
    the class of what a field of the model holds several of. of_order: whether the order of a
    history matters. breaks_ties: whether it orders items without a score by itself. falls_back:
    whether it has no scores for histories that it knows nothing of. reads_attributes: whether it
    is fitted on the items' attributes as well. of_seen: whether it has scores for the items of the
    history alone.
    """

    config: type[PlainConfig]
    model: type[Baseline]
    fit: Callable[[Any, Counted], Baseline]
    why_not: Callable[[Any, Counted, int | None], str | None] = no_obstacle
    of_order: bool = False
    breaks_ties: bool = False
    falls_back: bool = True
    reads_attributes: bool = False
    of_seen: bool = False
