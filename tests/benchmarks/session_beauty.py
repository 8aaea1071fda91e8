"""Amazon Beauty, leave one out: HR@10 and NDCG@10 over all items, seen ones left out and not.

Trains `session_beauty.yaml`, whose settings are those of `session_sports`, on all rows but those of
test, beside the baselines. What it reaches on the validation rows: `--set
split.join_validation=false`. More seeds: `--set seeds=3`. Other keys are of the configuration.
"""

from pathlib import Path

from _harness import Benchmark
from _loaned import loaned
from _session_runs import run


def main() -> None:
    benchmark = Benchmark("session_beauty", __doc__ or "")
    run(
        benchmark,
        Path(__file__).with_suffix(".yaml"),
        loaned("amazon-beauty"),
        {"hit_rate_at_10": "hr_at_10", "ndcg_at_10": "ndcg_at_10"},
        otherwise={"seen_kept": {"filter_seen": False}},
        final=("split.join_validation=true",),
    )


if __name__ == "__main__":
    main()
