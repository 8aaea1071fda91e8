"""`recsys explain`: what a ranker looks at, and what speaks for a recommendation."""

import json as json_format
from pathlib import Path
from typing import Any

import click

from recsys.app.options import COUNT, JSON, MODEL, PLACE, URI


@click.command()
@MODEL
@click.option("--user", help="Explain one row, or one recommendation: this user, by its id ...")
@click.option("--item", help="... with this item, by its id.")
@click.option("--row", type=COUNT, help="Explain this row of the log, from 1.")
@click.option("--where", metavar="CONDITION", help="Of lists: the one with this condition, ...")
@click.option("--exclude", metavar="PATH", help="... without these items, as for recsys score, ...")
@click.option("--allow", metavar="PATH", help="... with these items alone.")
@click.option(
    "--rows",
    "max_rows",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="Most test rows to look at, where the whole model is explained.",
)
@click.option(
    "--out",
    type=PLACE,
    help="Picture to write, .png or .svg; default: explanation-MODEL.png.",
)
@URI
@JSON
def explain(
    model: str,
    user: str | None,
    item: str | None,
    row: int | None,
    out: Path | None,
    tracking_uri: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what a ranker looks at, or why an item is recommended.

    Of a ranker, over the test rows or on one row: each field is exchanged for that of other rows,
    and the answers compared; of AutoInt the attention is shown too. Of a model that gives lists
    --user and --item show which items of the history speak for the item, of a pipeline which
    sources name it, at which place; there is no picture.

    MODEL is a bundle folder, a run id or models:/name@alias.

    Example: recsys explain models:/shop@champion --user u000123 --item i00042 --out why.png
    """
    from recsys.app.models import explain as explain_model
    from recsys.app.models import folder_of
    from recsys.training.explain.because import ListExplanation
    from recsys.training.explain.explanation import RowExplanation
    from recsys.training.reports.explanation_table import explanation_table, row_table

    if (user is None) != (item is None) or (user is not None and row is not None):
        raise click.UsageError("give --user and --item, or --row, or none of them")
    folder = folder_of(model, tracking_uri)
    picture = out or Path(f"explanation-{folder.name}.png")
    found = explain_model(
        folder,
        user=user,
        item=item,
        row=row,
        **options,
        picture=picture,
        quiet=as_json,
    )
    if isinstance(found, ListExplanation):  # which has no picture
        click.echo(json_format.dumps(found.to_json(), indent=1) if as_json else repr(found))
        return
    if as_json:
        click.echo(json_format.dumps({**found.to_json(), "picture": str(picture)}, indent=1))
        return
    if isinstance(found, RowExplanation):
        row_table(found)
    else:
        explanation_table(found)
    click.echo(f"\npicture: {picture}")
