"""`recsys register`, `promote`, `sync`: what is done with a trained model in the registry."""

import json as json_format
from pathlib import Path

import click

from recsys.app.options import JSON, MODEL, PLACE, URI, Finite


@click.command()
@MODEL
@click.option("--name", required=True, help="Registered model to add a version to.")
@click.option("--alias", help="Alias to move to the new version.")
@URI
@JSON
def register(
    model: str, name: str, alias: str | None, tracking_uri: str | None, as_json: bool
) -> None:
    """Add a model to the MLflow registry as a new version.

    Example: recsys register runs/two_tower-.../bundle/0123456789abcdef --name shop
    """
    from recsys.app.models import register as add_version

    version = add_version(model, name, alias=alias, tracking_uri=tracking_uri)
    if as_json:
        click.echo(json_format.dumps({"name": name, "version": version, "alias": alias}))
    else:
        click.echo(f"registered models:/{name}/{version}" + (f" as @{alias}" if alias else ""))


@click.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option("--alias", default="champion", show_default=True)
@click.option(
    "--if-better",
    metavar="METRIC",
    help="Promote only if the version is surely better by this, as in ndcg_at_10 or auc.",
)
@click.option(
    "--margin",
    type=Finite(),
    default=0.0,
    show_default=True,
    help="Least difference, in units of the metric; below 0: the most that may be lost.",
)
@click.option(
    "--on",
    type=PLACE,
    metavar="CONFIG",
    help="Configuration whose data, split and evaluation both get; default: the version's own.",
)
@URI
@JSON
def promote(
    name: str,
    version: int,
    alias: str,
    if_better: str | None,
    margin: float,
    on: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Point an alias at a version, after its bundle was verified.

    With --if-better the version and the one that holds the alias answer the same test queries. It
    is promoted if its gain is --margin or more and the 95 % interval of the gain is above zero;
    else the alias stays and the exit code is 6. With a --margin below zero it is promoted if the
    whole interval is above that: it is surely not worse by more. Where nobody holds the alias, it
    is promoted. In the place of a version that was trained on all rows (train --final) the model
    that chose its settings is compared.

    Example: recsys promote shop 3 --alias champion --if-better ndcg_at_10
    """
    from recsys.app.promoting import promote as move_alias

    done = move_alias(
        name,
        version,
        alias=alias,
        if_better=if_better,
        margin=margin,
        on=on,
        tracking_uri=tracking_uri,
        quiet=as_json,
    )
    gain = done.gain
    if as_json:
        facts = {"name": name, "version": version, "alias": alias, "before": done.before}
        facts["metric"] = if_better
        facts["gain"] = None if gain is None else [gain.mean, gain.low, gain.high]
        click.echo(json_format.dumps(facts))
        return
    if gain is not None:
        between = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
        click.echo(f"{if_better}: {gain.mean:+.4f} {between} over version {done.before}")
    click.echo(f"models:/{name}@{alias} is now version {version}")


@click.command()
@click.argument("run_dir", type=PLACE)
@URI
def sync(run_dir: Path, tracking_uri: str | None) -> None:
    """Deliver to MLflow what a run could not deliver while the server was down.

    The exit code is 75 where the store did not take all of it; what it took is not sent again.

    Example: recsys sync runs/two_tower-20260101-120000
    """
    from recsys.app.experiments import sync as deliver

    delivered = deliver(run_dir, tracking_uri=tracking_uri)
    click.echo(f"sent {delivered['sent']} records, {delivered['left']} left")
    for problem in delivered["skipped"]:
        click.echo(f"not in MLflow: {problem}", err=True)
