"""CPU time of a training step of a perceptron beside the same layers of torch.

Forward and backward pass of hidden layers with batch normalisation, ReLU and dropout 0.1, each
taken in turn, one thread, single precision; medians. `without_products` leaves out the time of the
linear layers alone, which both have.

    --set rounds=9      how often each is timed
"""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from _harness import Benchmark, alternated
from torch import Tensor, nn

from recsys.layers.mlp import mlp
from recsys.training.engine.machine import keep_freed_memory

DROPOUT = 0.1
CELLS = {
    "rows_4096_widths_160_400_400": (4096, (160, 400, 400)),
    "rows_1024_widths_160_400_400": (1024, (160, 400, 400)),
    "rows_4096_widths_624_400_400": (4096, (624, 400, 400)),
    "rows_4096_widths_160_128_64": (4096, (160, 128, 64)),
}


def torch_layers(widths: Sequence[int]) -> nn.Sequential:
    """Return the layers of torch's own modules."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after)]
        layers += [nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def products(widths: Sequence[int]) -> nn.Sequential:
    """Return the linear layers alone."""
    linear = [nn.Linear(before, after, bias=False) for before, after in pairwise(widths)]
    return nn.Sequential(*linear, nn.Linear(widths[-1], 1))


def step_of(layers: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a call that goes forward and back."""

    def step() -> None:
        layers.zero_grad(set_to_none=True)
        layers(x.requires_grad_()).square().mean().backward()

    return step


def main() -> None:
    bench = Benchmark("hidden_layers", __doc__ or "")
    given = dict(override.split("=", 1) for override in bench.overrides)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    rounds = int(given.get("rounds", bench.sized(15, 5, 1)))
    figures: dict[str, Any] = {}
    for name, (rows, widths) in CELLS.items():
        x = torch.randn(bench.sized(rows, rows, 64), widths[0])
        ways = {
            "engine": mlp(widths[0], widths[1:], 1, dropout=DROPOUT, norm="batch"),
            "torch": torch_layers(widths),
            "products": products(widths),
        }
        found = alternated({way: step_of(layers, x) for way, layers in ways.items()}, rounds)
        cpu = {way: 1e3 * timing.cpu for way, timing in found.items()}
        rest = {way: cpu[way] - cpu["products"] for way in ("engine", "torch")}
        figures[name] = {
            "cpu_ms": {way: round(value, 2) for way, value in cpu.items()},
            "torch_by_engine": round(cpu["torch"] / cpu["engine"], 2),
            "without_products": round(rest["torch"] / max(rest["engine"], 1e-9), 2),
        }
        bench.row(
            name,
            f"engine {cpu['engine']:.1f} ms, torch {cpu['torch']:.1f} ms, products alone "
            f"{cpu['products']:.1f} ms",
        )
    bench.finish({**figures, "threads": 1, "seed": 0})


if __name__ == "__main__":
    sys.exit(main())
