"""`recsys patch`: a model out of an earlier one and what makes the one of the other."""

import json as json_format
from pathlib import Path

import click

from recsys.app.options import JSON, MODEL, PLACE, URI


@click.command()
@MODEL
@click.argument("delta", type=PLACE)
@click.option(
    "--output",
    type=PLACE,
    required=True,
    help="Folder to make; it then stands for the model, as that of a run does.",
)
@URI
@JSON
def patch(model: str, delta: Path, output: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Make a newer model of MODEL and DELTA, a folder of recsys export --delta-from.

    What is made has the bits of the model that was exported, and is verified. A delta of another
    model than MODEL is refused (exit code 5).

    Example: recsys patch models:/shop/2 delta --output renewed
    """
    from recsys.app.deltas import patch as apply

    bundle = apply(model, delta, output, tracking_uri=tracking_uri).path
    if as_json:
        click.echo(json_format.dumps({"model_id": bundle.name, "bundle": str(bundle)}))
    else:
        click.echo(f"bundle: {bundle}")
