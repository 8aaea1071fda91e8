"""What a training and a scoring cost by the sizes of the data: constants that were measured.

A stage is a sum of terms, each a size times a constant. `tests/benchmarks/scale_plan.py` fits the
constants, and says by how much predictions are off for sizes that they were not fitted on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp

_MILLION = 1e6
_TRAINED, _TESTED = 0.8, 0.1
"""Shares of the rows that the default split trains on and tests on."""
_MOST_QUERIES = 50_000
"""Most users that an evaluation asks the model for, by default."""


@dataclass(frozen=True)
class Size:
    """The sizes of a job: rows of the log, users, items, epochs, rows of the embedding table."""

    rows: float
    users: float
    items: float
    epochs: float
    table: float

    @property
    def queries(self) -> float:
        """Users of the test rows, as far as an evaluation asks for them."""
        mean = self.rows * _TESTED / self.users
        return min(self.users * (1 - exp(-mean)), _MOST_QUERIES)


def _prepare(size: Size) -> dict[str, float]:
    return {"start": 1.0, "m_rows": size.rows / _MILLION, "m_items": size.items / _MILLION}


def _train(size: Size) -> dict[str, float]:
    rows = size.rows * _TRAINED * size.epochs / _MILLION
    return {"m_rows_an_epoch": rows, "m_rows_an_epoch_m_items": rows * size.items / _MILLION}


def _finish(size: Size) -> dict[str, float]:
    """Evaluation, index, report and bundle; a cell is a query and an item."""
    return {**_prepare(size), "m_cells": size.queries * size.items / _MILLION}


def _score(size: Size) -> dict[str, float]:
    """A list for each user of the log, or a probability for each row; items are all compared."""
    cells = size.users * size.items / _MILLION
    return {**_prepare(size), "m_users": size.users / _MILLION, "m_cells": cells}


def _streamed(size: Size) -> dict[str, float]:
    """Memory of a model whose rows stay on disk."""
    return {"start": 1.0}


Terms = Callable[[Size], dict[str, float]]
_STAGES: Mapping[str, Terms] = {
    "prepare_cpu_s": _prepare,
    "train_cpu_s": _train,
    "finish_cpu_s": _finish,
    "score_cpu_s": _score,
    "train_mib": _prepare,
}
STREAMED = frozenset({"autoint"})
"""Kinds that are measured on a log that is streamed from disk."""


def stages_of(kind: str) -> Mapping[str, Terms]:
    """Return what is planned, and its terms: seconds of one thread, the most MiB of a process."""
    return {**_STAGES, "train_mib": _streamed} if kind in STREAMED else _STAGES


@dataclass(frozen=True)
class Costs:
    """The constants of a kind of model: stage -> term -> seconds or MiB a unit of the term."""

    kind: str
    constants: Mapping[str, Mapping[str, float]]

    def of(self, size: Size) -> dict[str, float]:
        """Return stage -> seconds or MiB."""
        found = {}
        for stage, terms in stages_of(self.kind).items():
            constants = self.constants[stage]
            found[stage] = sum(constants[name] * one for name, one in terms(size).items())
        return found
