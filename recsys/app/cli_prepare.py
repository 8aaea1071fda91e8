"""`recsys prepare`: what training reads, encoded in a job of its own."""

import json as json_format
from pathlib import Path

import click

from recsys.app.options import CONFIG, JSON, SET
from recsys.core.visible import visible


@click.command()
@CONFIG
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder to encode to; default: the configuration's cache.",
)
@SET
@JSON
def prepare(config: Path, output: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Encode the data of a configuration to disk, so that its trainings start at once.

    The log and the tables are read, checked, parted and encoded as training does it, to the
    folder that `cache` names; a streamed log without one goes to `encoded` in the folder of
    `output`. Training with the same data, schema, split and engine finds it there and says so;
    what changed is encoded anew. Of a pipeline the data of its sources are encoded, too.

    Example: recsys prepare recsys.yaml --output /shared/encoded
    """
    from recsys.app.preparing import prepare as encode
    from recsys.training.families.load import load_config

    given = load_config(config, overrides)
    done = encode(given, output=output, quiet=as_json)
    if as_json:
        click.echo(json_format.dumps(done.facts(), indent=1))
        return
    for line in done.drops:
        click.echo(visible(line))
    parts = ", ".join(f"{rows:,} {name}" for name, rows in done.rows.items())
    click.echo(f"{sum(done.rows.values()):,} rows: {parts}")
    what = "were encoded before" if done.was_there else f"encoded in {done.seconds:,.1f} s"
    click.echo(f"{done.bytes / 1e6:,.1f} MB, {what}")
    for path in done.paths:
        click.echo(visible(f"encoded: {path}"))
    asked = "" if given.cache == str(done.folder) else f" --set cache={done.folder}"
    click.echo(visible(f"training reads it from there: recsys train {config}{asked}"))
