"""Self-supervision beside the next item's loss, on Amazon Sports: what it brings, what it costs.

Trains `session_sports.yaml` without and with each of masked items, masked attributes and the
contrast of two views, at two weights each, and gives the validation's NDCG@10 (the best epoch's)
and the CPU seconds of a step over those without. More seeds: `--set seeds=3`. Other keys are of
the configuration.
"""

import statistics
import tempfile
import time
from pathlib import Path

from _harness import Benchmark
from _loaned import loaned
from _session_runs import SMALL, config_of

from recsys.core.events import Event, StepDone
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.families.family import Given
from recsys.training.families.registry import family_of

KEY = "training.session.self_supervision"
BRAND_AND_KIND = "features: [brand, categories]"
ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    **{f"masked items, {w}": (f"{KEY}.masked_items.weight={w}",) for w in (0.1, 0.5)},
    **{
        f"masked attributes, {w}": (f"{KEY}.masked_attributes={{weight: {w}, {BRAND_AND_KIND}}}",)
        for w in (0.1, 0.5)
    },
    **{f"contrast, {w}": (f"{KEY}.contrastive.weight={w}",) for w in (0.05, 0.2)},
}


class StepClock:
    """CPU seconds of every step but an epoch's first, which has the validation before it."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._last: float | None = None

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone):
            return
        now = time.process_time()
        if self._last is not None and event.step > 1:
            self.steps.append(now - self._last)
        self._last = now


def evaluated(overrides: list[str], folder: Path) -> tuple[float, float]:
    """Train; return the best validation's NDCG@10 and the median CPU seconds of a step."""
    settings = Path(__file__).with_name("session_sports.yaml")
    config = config_of(settings, loaned("amazon-sports"), folder, overrides)
    task, clock = family_of(config).open(config, Given()).task(), StepClock()
    with tempfile.TemporaryDirectory(dir=folder) as run:
        best = fit(task, config.training, Checkpoints(Path(run)), (clock,)).best_metric
    assert best is not None
    return best, statistics.median(clock.steps)


def main() -> None:
    benchmark = Benchmark("session_ssl", __doc__ or "")
    keep_freed_memory()
    seeds = [int(one[6:]) for one in benchmark.overrides if one.startswith("seeds=")] or [1]
    common = [one for one in benchmark.overrides if not one.startswith("seeds=")]
    if benchmark.quick:
        common = [*(SMALL if benchmark.smoke else ()), "training.epochs=1", *common]
    figures: dict[str, dict[str, object]] = {}
    without = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, own in ARMS.items():
            found = [
                evaluated([*common, *own, f"training.seed={seed}"], Path(folder))
                for seed in range(seeds[0])
            ]
            ndcg, cost = [one for one, _ in found], statistics.mean(one for _, one in found)
            without = without or cost
            benchmark.row(
                name, f"{statistics.mean(ndcg):.4f}   CPU of a step x {cost / without:.2f}"
            )
            figures[name] = {"ndcg_at_10": ndcg, "step_cpu_s": cost, "vs_none": cost / without}
    benchmark.finish({"validation": figures, "seeds": seeds[0]})


if __name__ == "__main__":
    main()
