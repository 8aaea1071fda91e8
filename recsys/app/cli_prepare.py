"""`recsys prepare`: what training reads, encoded in a job of its own."""

import json as json_format
import shlex
from pathlib import Path
from typing import Literal

import click

from recsys.app.options import CONFIG, JSON, PLACE, SET
from recsys.core.visible import visible


@click.command()
@CONFIG
@click.option(
    "--output",
    type=PLACE,
    metavar="FOLDER",
    help="Folder to encode to; default: the configuration's cache.",
)
@click.option(
    "--engine",
    type=click.Choice(("local", "spark")),
    default="local",
    show_default=True,
    help="What encodes a log with data.stream: this process, or Spark's workers.",
)
@click.option(
    "--master",
    metavar="URL",
    help="With --engine spark: where it runs, as local[4]; default: as Spark is set up.",
)
@SET
@JSON
def prepare(
    config: Path,
    output: Path | None,
    engine: Literal["local", "spark"],
    master: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Encode the data of a configuration to disk, so that its trainings start at once.

    The log and the tables are read, checked, parted and encoded as training does it, to the
    folder that `cache` names; a streamed log without one goes to `encoded` in the folder of
    `output`. Training with the same data, schema, split and engine finds it there and says so;
    what changed is encoded anew. Of a pipeline the data of its sources are encoded, too.

    --engine spark has Spark's workers encode a log with data.stream: the bytes are the same. The
    log and the folder have to be at the same absolute path on all its machines.

    Example: recsys prepare recsys.yaml --output /shared/encoded
    """
    from recsys.app.preparing import prepare as encode
    from recsys.training.families.load import load_config

    done = encode(
        load_config(config, overrides), output=output, engine=engine, master=master, quiet=as_json
    )
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
    settings = [*overrides, *([] if output is None else [f"cache={output}"])]
    words = ["recsys", "train", str(config), *(word for one in settings for word in ("--set", one))]
    click.echo(visible(f"training reads it from there: {shlex.join(words)}"))
