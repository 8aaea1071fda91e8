"""The constants of `recsys plan`, and by how much the plan is off on trainings that it never saw.

Trains and scores made-up logs of several sizes, each in a process of its own with one thread, fits
the constants on some of them and predicts the others, the largest of which is larger than all that
the constants were fitted on.

    --set kinds=two_tower,session    measures some kinds alone and keeps what is saved of the others
    --set refit=true                 measures nothing: fits the constants to the runs that are saved
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Benchmark
from scipy.optimize import nnls

from recsys.training.jobs.scale import Costs, Size, stages_of

KINDS = ("two_tower", "session", "autoint")
FITTED = (
    (60_000, 6_000, 2_000),
    (60_000, 20_000, 20_000),
    (150_000, 10_000, 5_000),
    (300_000, 60_000, 2_000),
    (300_000, 20_000, 50_000),
    (600_000, 50_000, 10_000),
    (800_000, 150_000, 30_000),
    (2_500_000, 250_000, 50_000),
)
CHECKED = ((200_000, 20_000, 10_000), (500_000, 40_000, 30_000), (1_500_000, 150_000, 40_000))
EPOCHS, TABLE = 2, 131_072


def measured(kind: str, rows: int, users: int, items: int, epochs: int, table: int) -> Any:
    """Return what `_scale_run.py` prints of one size."""
    asked = {"kind": kind, "rows": rows, "users": users, "items": items}
    asked |= {"epochs": epochs, "table": table}
    script = str(Path(__file__).with_name("_scale_run.py"))
    command = [sys.executable, script, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def size_of(run: dict[str, Any]) -> Size:
    """Return the size that a run was of."""
    return Size(**{name: run[name] for name in ("rows", "users", "items", "epochs", "table")})


def fitted(kind: str, runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return stage -> term -> constant, none below 0, fitted on relative errors."""
    found = {}
    for stage, terms in stages_of(kind).items():
        wanted = np.array([run[stage] for run in runs])
        cells = np.array([list(terms(size_of(run)).values()) for run in runs])
        solved, _ = nnls(cells / wanted[:, None], np.ones(len(runs)))
        names = terms(size_of(runs[0]))
        found[stage] = {name: float(f"{one:.4g}") for name, one in zip(names, solved, strict=True)}
    return found


def judged(
    bench: Benchmark, kind: str, fitted_on: list[dict[str, Any]], others: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the constants of a kind, its runs, and the largest errors on those not fitted on."""
    constants = fitted(kind, fitted_on)
    costs = Costs(kind, constants)
    off: dict[str, float] = {}
    for run in others:
        made = costs.of(size_of(run))
        cpu = [name for name in made if name.endswith("cpu_s")]
        pairs = {name: (made[name], run[name]) for name in made}
        pairs["all_cpu_s"] = (sum(made[n] for n in cpu), sum(run[n] for n in cpu))
        for name, (planned, seen) in pairs.items():
            error = planned / seen - 1
            off[name] = max(off.get(name, 0.0), abs(error))
            said = f"planned {planned:,.1f}, measured {seen:,.1f} ({error:+.0%})"
            bench.row(f"{kind} {run['rows']:,} rows: {name}", said)
    return {"constants": constants, "largest_error": off, "runs": [*fitted_on, *others]}


def main() -> None:
    bench = Benchmark("scale_plan", __doc__ or "")
    chosen = [one[6:].split(",") for one in bench.overrides if one.startswith("kinds=")]
    refits = "refit=true" in bench.overrides
    kinds = chosen[0] if chosen else KINDS
    sizes = bench.sized(FITTED, FITTED[:5], ((2_000, 200, 100), (4_000, 800, 100)))
    checks = bench.sized(CHECKED, CHECKED[:1], ((3_000, 300, 200),))
    epochs, table = bench.sized((EPOCHS, TABLE), (1, TABLE), (1, 1024))
    figures: dict[str, Any] = bench.kept() if chosen or refits else {}
    for kind in bench.sized(kinds, kinds, kinds[:1]):
        if refits:
            runs = figures[kind]["runs"]
        else:
            runs = [measured(kind, *size, epochs, table) for size in (*sizes, *checks)]
        figures[kind] = judged(bench, kind, runs[: len(sizes)], runs[len(sizes) :])
        bench.keep(figures)
    bench.finish(figures)


if __name__ == "__main__":
    main()
