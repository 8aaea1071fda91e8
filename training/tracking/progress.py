"""What a person sees while training runs."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from recsys.training.engine.checkpoint import LoopState
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

    def on_step(self, state: LoopState, num_steps: int, loss: float, rate: float) -> None:
        """Move the bar; a step of the epoch at hand is done."""
        self.rate = rate
        self.bar.update(
            self.task,
            total=num_steps,
            completed=state.step,
            epoch=state.epoch + 1,
            loss=loss,
            rate=rate,
            visible=True,
        )

    def on_log(self, point: dict[str, float]) -> None:
        """Print a line an epoch: its mean loss, and its validation where there is one."""
        if self.quiet or EPOCH_LOSS not in point:
            return
        self.bar.update(self.task, visible=False)  # until the next step, if there is one
        decides = f"validation/{self.metric}"
        shown = {n: v for n, v in point.items() if n.endswith("_at_20") or n == decides}
        shown = shown or {n: v for n, v in point.items() if n.startswith("validation/")}
        words = [f"{n.removeprefix('validation/')} {v:.4f}" for n, v in shown.items()]
        parts = [
            f"epoch {int(point['epoch']) + 1}",
            f"loss {point[EPOCH_LOSS]:.4f}",
            *words,
            f"{self.rate:,.0f} examples/s",
            f"{time.monotonic() - self.started:.0f} s",
        ]
        self.bar.console.print(
            "  ".join(parts),
            highlight=False,
            soft_wrap=True,
        )
