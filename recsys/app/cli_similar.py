"""`recsys similar`: the items most like some items."""

import json as json_format

import click

from recsys.app.options import COUNT, JSON, MODEL, URI


@click.command()
@MODEL
@click.option("--item", "items", multiple=True, required=True, help="An item, by its id; repeat.")
@click.option("--k", type=COUNT, default=10, show_default=True, help="Items for each.")
@URI
@JSON
def similar(
    model: str, items: tuple[str, ...], k: int, tracking_uri: str | None, as_json: bool
) -> None:
    """Show the items most like some items.

    By the cosine of their vectors; of a model that counts and has none, what it recommends after
    the item alone. Of a pipeline its first source answers, which is named.

    Example: recsys similar models:/demo@champion --item i00042
    """
    from recsys.app.models import load
    from recsys.training.reports.console import Column, TextTable, print_line, print_table

    opened = load(model, tracking_uri=tracking_uri)
    of_text = {str(one): one for one in opened.items}
    found = opened.similar_items([of_text.get(item, item) for item in items], k=k)
    if as_json:
        click.echo(json_format.dumps(json_format.loads(found.to_json(orient="records")), indent=1))
        return
    source = found.pop("source").iloc[0] if "source" in found and len(found) else None
    rows = tuple(tuple(_shown(one) for one in row) for row in found.itertuples(index=False))
    columns = tuple(Column(name, text=name != "score") for name in found.columns)
    print_table(TextTable(columns, rows))
    if source is not None:
        print_line(f"by the pipeline's first source, {source}")


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
