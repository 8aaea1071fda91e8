"""What commands print of a run and of an evaluation."""

import json
from typing import Any

import click

from recsys.app.run import Run


def print_run(run: Run, *, as_json: bool) -> None:
    """Print how a training did and where it left what it made."""
    if not as_json:
        print_evaluation(run.evaluation)
        click.echo(f"\nbundle: {run.bundle}\nreport: {run.report}")
        return
    outcome: dict[str, Any] = {
        "run_dir": str(run.path),
        "run_id": run.run_id,
        "bundle": str(run.bundle),
        "model_id": run.bundle.name,
        "report": str(run.report),
        "metrics": metrics_of(run.evaluation),
    }
    if run.version is not None:
        outcome["version"] = run.version
    click.echo(json.dumps(outcome, indent=1))


def metrics_of(evaluation: Any) -> dict[str, Any]:
    """Return an evaluation as plain numbers, by ranker; the model's own first.

    A ranker of labelled rows has its metrics on top, and those of the others by name.
    """
    if hasattr(evaluation, "flat"):
        return {n.removeprefix("test/"): value for n, value in evaluation.tracked().items()}
    return {name: result.metrics for name, result in evaluation.results.items()}


def print_evaluation(evaluation: Any) -> None:
    """Print the metrics of an evaluation as a table."""
    from recsys.training.families.ranker.evaluation import RankingEvaluation
    from recsys.training.reports.evaluation_table import evaluation_table, ranking_table

    if isinstance(evaluation, RankingEvaluation):
        ranking_table(evaluation)
    else:
        evaluation_table(evaluation)
