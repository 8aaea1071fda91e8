"""What commands print of a run."""

import json
from typing import Any

import click

from recsys.app.run import Run


def print_run(run: Run, *, as_json: bool) -> None:
    """Print how a training did and where it left what it made."""
    from recsys.training.families.registry import show_evaluation

    assert run.evaluation is not None, "the run was trained here"
    if as_json:
        click.echo(json.dumps(_outcome(run), indent=1))
        return
    if run.chosen is not None:
        print_run(run.chosen, as_json=False)
        click.echo("\nfinal training, on all rows:")
    show_evaluation(run.evaluation)
    click.echo(f"\nbundle: {run.bundle}")
    if run.report.exists():
        click.echo(f"report: {run.report}")


def _outcome(run: Run) -> dict[str, Any]:
    assert run.evaluation is not None, "the run was trained here"
    outcome: dict[str, Any] = {
        "run_dir": str(run.path),
        "run_id": run.run_id,
        "bundle": str(run.bundle),
        "model_id": run.bundle.name,
        "report": str(run.report) if run.report.exists() else None,
        "metrics": run.evaluation.figures(),
    }
    if run.version is not None:
        outcome["version"] = run.version
    if run.chosen is not None:
        outcome["chosen"] = _outcome(run.chosen)
    return outcome
