"""What a person sees while training runs."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from recsys.core.events import Event, PointLogged, StepDone
from recsys.training.engine.loop import EPOCH_LOSS


class Progress:
    """A live bar with loss and examples a second on a terminal, plain lines elsewhere."""

    def __init__(self, epochs: int, *, metric: str, quiet: bool) -> None:
        self.epochs, self.metric = epochs, metric
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self.bar = RichProgress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} examples/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self.live,
            transient=True,
        )
        self.task = self.bar.add_task(
            "train", total=None, epoch=1, loss=0.0, rate=0.0, visible=False
        )
        self.started = time.monotonic()
        self.rate = 0.0

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def __call__(self, event: Event) -> None:
        """Move the bar at each step, print a line at the end of an epoch."""
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, PointLogged):
            self._point(event.values)

    def _step(self, done: StepDone) -> None:
        self.rate = done.examples_per_second
        self.bar.update(
            self.task,
            total=done.num_steps,
            completed=done.step,
            epoch=done.epoch + 1,
            loss=done.loss,
            rate=done.examples_per_second,
            visible=True,
        )

    def _point(self, point: Mapping[str, float]) -> None:
        """Print the mean loss of an epoch, and its validation where there is one."""
        if self.quiet or EPOCH_LOSS not in point:
            return
        self.bar.update(self.task, visible=False)  # until the next step, if there is one
        decides = f"validation/{self.metric}"
        measured = {n: v for n, v in point.items() if n.startswith("validation/")}
        shown = {n: v for n, v in measured.items() if n.endswith("_at_20") or n == decides}
        if not any(name.endswith("_at_20") for name in shown):  # of rows, not of lists
            shown = measured
        words = [f"{n.removeprefix('validation/')} {v:.4f}" for n, v in shown.items()]
        parts = [
            f"epoch {int(point['epoch']) + 1}",
            f"loss {point[EPOCH_LOSS]:.4f}",
            *words,
            f"{self.rate:,.0f} examples/s",
            f"{time.monotonic() - self.started:.0f} s so far",
        ]
        self.bar.console.print(
            "  ".join(parts),
            highlight=False,
            soft_wrap=True,
        )
