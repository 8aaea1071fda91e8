"""Diginetica, as SR-GNN cut it: P@20 and MRR@20 over all items, for each click after the first.

Trains `session_diginetica.yaml`, as chosen on the last 15,000 training sessions, on all training
sessions, beside the baselines. What it reaches on those sessions: `--set
split.join_validation=false`. More seeds: `--set seeds=3`. Other keys are of the configuration.
"""

import tempfile
from pathlib import Path

from _harness import Benchmark
from _loaned import loaned
from _session_rows import diginetica
from _session_runs import run


def main() -> None:
    benchmark = Benchmark("session_diginetica", __doc__ or "")
    loaned("diginetica")
    with tempfile.TemporaryDirectory() as folder:
        run(
            benchmark,
            Path(__file__).with_suffix(".yaml"),
            diginetica(Path(folder)),
            {"hit_rate_at_20": "p_at_20", "mrr_at_20": "mrr_at_20"},
            final=("split.join_validation=true",),
        )


if __name__ == "__main__":
    main()
