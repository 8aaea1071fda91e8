"""What a job reports to its listener while it runs: steps, points of curves, finished parts.

A listener is called with one event after another, in the thread of the job. What it raises ends
the job; a training that ends so continues from its last checkpoint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step of a training is done.

    epoch: counted from 0. step: steps of the epoch so far, of num_steps. global_step: of all
    epochs. loss: of this batch. examples_per_second: recently.
    """

    epoch: int
    step: int
    num_steps: int
    global_step: int
    loss: float
    examples_per_second: float


@dataclass(frozen=True, slots=True)
class PointLogged:
    """A point of the curves: "step", "epoch" and what was measured there, by name.

    The last point of an epoch has "epoch_loss" and, where there is a validation part, the
    "validation/..." metrics.
    """

    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part of a batch job is written, or was found: how many are there, of how many."""

    done: int
    total: int


Event = StepDone | PointLogged | PartDone
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""
