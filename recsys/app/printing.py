"""What commands print of a run and of an evaluation."""

import json
from typing import TYPE_CHECKING, Any

import click

from recsys.app.run import Run

if TYPE_CHECKING:
    from recsys.training.evaluation.results import ModelEvaluation


def print_run(run: Run, *, as_json: bool) -> None:
    """Print how a training did and where it left what it made."""
    if not as_json:
        print_evaluation(run.kind, run.evaluation)
        click.echo(f"\nbundle: {run.bundle}\nreport: {run.report}")
        return
    outcome: dict[str, Any] = {
        "run_dir": str(run.path),
        "run_id": run.run_id,
        "bundle": str(run.bundle),
        "model_id": run.bundle.name,
        "report": str(run.report),
        "metrics": None if run.evaluation is None else run.evaluation.figures(),
    }
    if run.version is not None:
        outcome["version"] = run.version
    click.echo(json.dumps(outcome, indent=1))


def print_evaluation(kind: str, evaluation: "ModelEvaluation | None") -> None:
    """Print the metrics of an evaluation as the family of the model has them, as a table."""
    from recsys.training.families.registry import FAMILY_OF_KIND

    if evaluation is not None:
        FAMILY_OF_KIND[kind].show(evaluation)
