"""`recsys compare`: trained models on the same queries or rows."""

import json as json_format
from pathlib import Path

import click

from recsys.app.options import JSON, PLACE, URI


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL...")
@click.option(
    "--on",
    type=PLACE,
    metavar="CONFIG",
    help="Configuration whose data, split and evaluation all get; default: the first model's.",
)
@click.option(
    "--metric",
    metavar="METRIC",
    help="Decides which model is better, as in ndcg_at_10 or auc; default: training.metric.",
)
@click.option("--report", type=PLACE, help="HTML report to write.")
@URI
@JSON
def compare(
    models: tuple[str, ...],
    on: Path | None,
    metric: str | None,
    report: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Compare models on the same test queries, the others with the first.

    MODEL is a bundle or run folder, a run id, models:/name@alias or models:/name/3. Differences
    are paired, with 95 % intervals, overall and by slice, and plain models answer the same
    queries. Two-towers and models of sessions are compared with each other, rankers with rankers.

    Example: recsys compare models:/shop@champion runs/two_tower-... --report comparison.html
    """
    from recsys.app.comparing import compare as compare_models
    from recsys.training.reports.comparison_table import comparison_table

    found = compare_models(
        list(models),
        on=on,
        metric=metric,
        report=report,
        tracking_uri=tracking_uri,
        quiet=as_json,
    )
    if as_json:
        facts = found.figures() | {"report": None if report is None else str(report)}
        click.echo(json_format.dumps(facts, indent=1))
        return
    comparison_table(found)
    if report is not None:
        click.echo(f"\nreport: {report}")
