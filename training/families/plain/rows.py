"""The training rows as baselines and memories count them, and whether they can."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.embeddings.memory import free_memory_bytes
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import TRAIN
from recsys.retrieval.follow import follow_bytes


@dataclass(frozen=True)
class TrainingRows:
    """The training rows, sequence after sequence, each in order, (E,) each.

    A sequence is a session, or where the log is not cut into any, all of a user.
    """

    user: NDArray[np.int32]
    sequence: NDArray[np.int64]
    item: NDArray[np.int32]
    time: NDArray[np.int64] | None

    @classmethod
    def of(cls, data: Dataset, sessions: Sessions | None) -> "TrainingRows":
        """Return those of `data`; sessions: how the log is cut, None where it is not."""
        events = data.tables.events
        rows = data.events_of((TRAIN,))
        sequence = events.user_row[rows].astype(np.int64)
        if sessions is not None:
            trained = sessions.only(data.part == TRAIN)
            rows = trained.order
            sequence = np.repeat(np.arange(len(trained)), trained.lengths())
        has_clock = data.schema.interactions.time is not None
        time = events.time[rows] if has_clock else None
        return cls(events.user_row[rows], sequence, events.item_row[rows], time)


def why_not_counted(num_rows: int, num_items: int) -> str | None:
    """Return why so many training rows are too many for counts of item pairs; None: they fit."""
    needed = follow_bytes(num_rows, num_items)
    return why_not_in_memory(needed, f"counts of item pairs may need {needed / 1e9:.1f} GB")


def why_not_in_memory(needed: float, words: str) -> str | None:
    """Return `words` with how much memory is free, where `needed` bytes are not; else None."""
    free = free_memory_bytes()
    # A tenth more, and half a gigabyte, for what else is in memory meanwhile.
    if free is not None and 1.1 * needed + 5e8 > free:
        return f"{words}, and {free / 1e9:.1f} GB of memory are free"
    return None
