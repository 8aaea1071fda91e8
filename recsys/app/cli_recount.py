"""`recsys recount`: what a trained model counts, taken from a newer log."""

import json as json_format
from pathlib import Path

import click

from recsys.app.options import JSON, MODEL, PLACE, URI


@click.command()
@MODEL
@click.option("--interactions", required=True, metavar="LOG", help="The whole newer log.")
@click.option(
    "--output",
    type=PLACE,
    required=True,
    help="Folder to make; it then stands for the model, as that of a run does.",
)
@click.option(
    "--rows",
    type=click.Choice(("training", "all")),
    default="training",
    show_default=True,
    help="training: those that the model's split trains on, so that it can be evaluated and "
    "compared; all: every row, for a model that goes into service.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another policy for the log than in training, as in policies.bad_times=drop.",
)
@URI
@JSON
def recount(
    model: str,
    interactions: str,
    output: Path,
    rows: str,
    overrides: tuple[str, ...],
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Count anew from a newer log what a trained model counts; nothing is trained.

    A model of sessions or a two-tower keeps its weights, and its memory of pairs is counted anew; a
    plain model is fitted anew. Which items there are stays: rows of others are left out and
    counted. The new model says which one it came from; evaluate, compare and register it as any.

    Example: recsys recount models:/shop@champion --interactions log.parquet --output renewed
    """
    from recsys.app.recounting import recount as count_anew
    from recsys.training.families.overrides import typed_override

    done = count_anew(
        model,
        interactions,
        output,
        rows="all" if rows == "all" else "training",
        settings=dict(map(typed_override, overrides)),
        tracking_uri=tracking_uri,
        quiet=as_json,
    )
    if as_json:
        click.echo(json_format.dumps(done.facts(), indent=1, default=str))
        return
    click.echo(f"{done.rows:,} rows counted, of {done.items:,} of {done.catalogue:,} items")
    if done.unknown_rows:
        click.echo(
            f"left out: {done.unknown_rows:,} rows of {done.unknown_items:,} items that the model "
            f"does not know, {done.first_unknown!r} among them; train it to know them"
        )
    for name, words in done.words.items():
        click.echo(f"{name}: {words}")
    click.echo(f"bundle: {done.bundle}")
