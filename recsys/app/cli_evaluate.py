"""`recsys evaluate`: a trained model evaluated again."""

import json as json_format
from pathlib import Path

import click

from recsys.app.options import JSON, MODEL, PLACE, URI


@click.command()
@MODEL
@click.option(
    "--out",
    type=PLACE,
    help="Report to write; default: evaluation-MODEL.html.",
)
@click.option(
    "--keep-seen/--hide-seen",
    default=None,
    help="Whether lists may hold items the user has interacted with; default: as in training "
    "(evaluation.filter_seen).",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the section evaluation.",
)
@URI
@JSON
def evaluate(
    model: str,
    out: Path | None,
    keep_seen: bool | None,
    overrides: tuple[str, ...],
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Evaluate a model again, with baselines and a report.

    MODEL is a bundle folder, a run id or models:/name@alias. The data, the split and the model
    are those of the training; how it is evaluated can be changed.

    Example: recsys evaluate models:/demo@champion --set evaluation.ks=[5,10] --out report.html
    """
    from recsys.app.models import folder_of
    from recsys.app.progress import printed
    from recsys.training.families.overrides import typed_override
    from recsys.training.families.registry import show_evaluation
    from recsys.training.jobs.evaluate import evaluate_bundle

    settings = dict(map(typed_override, overrides))
    if keep_seen is not None:
        settings["evaluation.filter_seen"] = not keep_seen
    folder = folder_of(model, tracking_uri)
    report = out or Path(f"evaluation-{folder.name}.html")
    with printed(as_json):
        evaluation = evaluate_bundle(folder, report, settings=settings)
    if as_json:
        facts = {"report": str(report), "metrics": evaluation.figures()}
        click.echo(json_format.dumps(facts, indent=1))
    else:
        show_evaluation(evaluation)
        click.echo(f"\nreport: {report}")
