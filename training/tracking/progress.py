"""What a person sees while training runs, and the table at its end."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from recsys.training.engine.checkpoint import LoopState
from recsys.training.engine.loop import EPOCH_LOSS
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.ranker.evaluation import RankingEvaluation


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


def evaluation_table(evaluation: Evaluation) -> None:
    """Print every ranker's main metrics with their 95 % intervals, and what finds cold items."""
    console = Console()
    k = 20 if 20 in evaluation.ks else evaluation.ks[0]
    names = [f"recall_at_{k}", f"ndcg_at_{k}"]
    table = Table(title=f"test: {evaluation.protocol['split']}, {evaluation.protocol['queries']}")
    table.add_column("ranker", no_wrap=True)
    for name in [*names, "coverage"]:
        table.add_column(name, justify="right", no_wrap=True)
    for ranker, result in evaluation.results.items():
        cells = [_cell(result.metrics[name], result.intervals[name]) for name in names]
        table.add_row(ranker, *cells, f"{result.metrics[f'coverage_at_{k}']:.3f}")
    console.print(table)
    if evaluation.cold is not None:
        console.print(_cold_table(evaluation, k))
    for name, why in evaluation.left_out.items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False, soft_wrap=True)
    best = evaluation.results.get("best_reachable")
    if best is not None:
        model = next(iter(evaluation.results.values()))
        share = model.metrics[names[0]] / max(best.metrics[names[0]], 1e-12)
        console.print(f"{names[0]}: {share:.0%} of the best reachable", highlight=False)


def _cold_table(evaluation: Evaluation, k: int) -> Table:
    cold, k = evaluation.cold, evaluation.cold_k(k)
    assert cold is not None
    table = Table(
        title=f"recall_at_{k} of the {cold.items:,} cold items, which {cold.queries:,} "
        f"{evaluation.asked} took"
    )
    table.add_column("ranker", no_wrap=True)
    for word in ("among all items", "they alone ranked"):
        table.add_column(word, justify="right", no_wrap=True)
    for ranker, result in evaluation.results.items():
        names = (f"{place}_recall_at_{k}" for place in ("cold", "cold_alone"))
        cells = []
        for name in names:
            low, high = result.intervals[name]
            cells.append(f"{result.metrics[name]:.4f} [{low:.4f}, {high:.4f}]")
        table.add_row(ranker, *cells)
    return table


def ranking_table(evaluation: RankingEvaluation) -> None:
    """Print every ranker's AUC and log loss with their 95 % intervals, and its other metrics."""
    console = Console()
    table = Table(title=f"test: {evaluation.protocol['split']}; {evaluation.protocol['test rows']}")
    table.add_column("ranker", no_wrap=True)
    shown = {"auc": "auc", "log_loss": "log_loss", "gauc": "gauc", "ndcg_at_10": "ndcg_at_10"}
    shown = {name: word for name, word in shown.items() if name in evaluation.own.metrics}
    for word in [*shown.values(), "calibration"]:
        table.add_column(word, justify="right", no_wrap=True)
    for ranker, result in evaluation.results.items():
        cells = []
        for name in shown:
            one = result.metrics[name]
            wide = name in ("auc", "log_loss")
            interval = f" [{one.low:.4f}, {one.high:.4f}]" if wide else ""
            cells.append(f"{one.value:.4f}{interval}")
        table.add_row(ranker, *cells, f"{result.calibration.error:.4f}")
    console.print(table)
    console.print(
        f"log loss of always predicting the mean: {evaluation.base_rate:.4f}; the model explains "
        f"{evaluation.own.metrics['relative_information_gain'].value:.1%} of it",
        highlight=False,
    )


def _cell(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
