"""The front door: `recsys COMMAND`. Rooms are imported inside each command, so help is quick."""

import json as json_format
import sys
from pathlib import Path
from typing import Any

import click

from recsys.app.cli_evaluate import evaluate
from recsys.app.cli_explain import explain
from recsys.app.cli_jobs import (
    ExportTarget,
    export_model,
    resolve_model,
    score_users,
    starting_from,
    train_one,
    train_together,
    wait_for_last_words,
)
from recsys.app.cli_score import score
from recsys.app.cli_tune import tune
from recsys.app.options import COUNT, SEED, Finite
from recsys.core.errors import UserError
from recsys.core.folders import check_folder

INTERRUPTED = 130
_CONFIG = click.argument("config", type=click.Path(path_type=Path))
_MODEL = click.argument("model")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_URI = click.option("--tracking-uri", help="MLflow store; default: mlflow.db in this folder.")
_SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a configuration key."
)


class _Door(click.Group):
    """Turns the errors a user can act on into one message and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            if context.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except MemoryError:
            click.echo("Error: out of memory; use a smaller embedding.num_rows", err=True)
            sys.exit(1)
        except RuntimeError as error:
            code = wait_for_last_words(error)
            if code is None:
                raise
            click.echo("lost another rank; its own message says why", err=True)
            sys.exit(code)


@click.group(cls=_Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recsys-engine")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Recommenders from tables: train, evaluate, export, score, register.

    \b
    Start here:
      recsys demo                     the whole job on built-in data, in about a minute
      recsys init ratings.parquet movies.parquet users.parquet
      recsys check recsys.yaml
      recsys train recsys.yaml

    Exit codes: 0 ok, 2 usage or configuration, 3 data, 4 not found, 5 integrity,
    12 training diverged, 75 another rank failed, 130 interrupted, 143 terminated.
    """  # noqa: D301


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to write to.",
)
@click.option(
    "--users", type=COUNT, default=2000, show_default=True, help="Users of the built-in world."
)
@click.option(
    "--items",
    type=click.IntRange(min=20),
    default=1000,
    show_default=True,
    help="Items of the built-in world.",
)
@click.option(
    "--events", type=COUNT, default=60_000, show_default=True, help="Interactions to draw."
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--noise", is_flag=True, help="The twin world in which nothing can be learnt.")
@_SET
def demo(
    out: Path,
    users: int,
    items: int,
    events: int,
    seed: int,
    noise: bool,
    overrides: tuple[str, ...],
) -> None:
    """The main job end to end on a built-in retail world.

    Example: recsys demo --out demo
    """
    from recsys.features.world.world import RetailWorld
    from recsys.serving.registry import promote as move_alias
    from recsys.training.config.file import load_config
    from recsys.training.evaluation.oracle import best_reachable

    check_folder(out, "data, runs and recommendations")
    out.mkdir(parents=True, exist_ok=True)
    click.echo(f"drawing a world of {users:,} users, {items:,} items, {events:,} events")
    world = RetailWorld.create(seed=seed, users=users, items=items, events=events, noise=noise)
    files = world.write(out / "data")
    config_path = files.folder / "recsys.yaml"
    config_path.write_text(world.config_text(files))
    here = (f"output={out / 'runs'}", f"tracking.uri=sqlite:///{(out / 'mlflow.db').resolve()}")
    config = load_config(config_path, (*here, "tracking.model_name=demo", *overrides))
    oracle = best_reachable(world, filter_seen=config.evaluation.filter_seen)
    outcome = train_one(config, None, extra_rankers=oracle)
    assert outcome is not None, "the demo trains in one process"
    if "version" in outcome:
        move_alias("demo", outcome["version"], "champion", uri=config.tracking.uri)
    scores = out / "recommendations" / outcome["model_id"]
    score_users(outcome["bundle"], scores, config.data.interactions, config.data.users)
    click.echo(f"\nrecommendations: {scores}")
    click.echo(f"bundle:          {outcome['bundle']}")
    click.echo(f"report:          {outcome['report']}")


@main.command()
@click.argument("tables", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("recsys.yaml"), show_default=True
)
@click.option("--force", is_flag=True, help="Overwrite an existing configuration.")
def init(tables: tuple[str, ...], out: Path, force: bool) -> None:
    """Look at your tables and write a commented configuration.

    Example: recsys init ratings.parquet movies.parquet users.parquet
    """
    from recsys.core.errors import ConfigError
    from recsys.features.propose.tables import infer

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; give --force to overwrite it, or another --out")
    found = infer([Path(table) for table in tables], relative_to=out.resolve().parent)
    out.write_text(found.yaml)
    for line in found.summary:
        click.echo(line)
    if found.unsure:
        click.echo("\nPlease look at these; I was not sure:")
    for sentence in found.unsure:
        click.echo(f"  - {sentence}")
    click.echo(f"\nwrote {out}; next: recsys check {out}")


@main.command()
@_CONFIG
@_SET
@_JSON
def check(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Validate configuration and data without training.

    Example: recsys check recsys.yaml
    """
    from recsys.training.config.file import load_config
    from recsys.training.jobs.check import preflight

    report = preflight(load_config(config, overrides))
    if as_json:
        click.echo(json_format.dumps(report.to_json(), indent=1))
    else:
        click.echo("\n".join(report.lines()))


@main.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Go on with a run."
)
@click.option(
    "--workers",
    type=COUNT,
    default=1,
    show_default=True,
    help="Processes on this machine that train together, the table sharded over them.",
)
@click.option("--warm-start", metavar="MODEL", help="Start from the weights of this model.")
@_URI
@_SET
@_JSON
def train(
    config: Path | None,
    resume: Path | None,
    workers: int,
    warm_start: str | None,
    tracking_uri: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train, evaluate, bundle and track one model.

    --warm-start takes a bundle folder, a run id or models:/name@alias, and goes on from its
    weights: on newer rows, with other features, or with a larger embedding.num_rows.

    Example: recsys train recsys.yaml --set training.epochs=5
    """
    from recsys.training.config.file import load_config
    from recsys.training.jobs.train import config_of_run

    if (config is None) == (resume is None):
        raise click.UsageError("give a configuration or --resume RUN_DIR, one of the two")
    if resume is not None and (overrides or warm_start):
        raise click.UsageError(
            "--set and --warm-start do not go with --resume: a run keeps its configuration"
        )
    if resume is not None:
        settings = config_of_run(resume)
    else:
        assert config is not None
        settings = starting_from(load_config(config, overrides), warm_start, tracking_uri)
    if workers > 1:
        sys.exit(train_together(settings, resume, workers, quiet=as_json))
    outcome = train_one(settings, resume, quiet=as_json)
    if outcome is None:  # one of several ranks, and not the one that reports
        return
    if as_json:
        click.echo(json_format.dumps(outcome, indent=1))
    else:
        click.echo(f"\nbundle: {outcome['bundle']}\nreport: {outcome['report']}")


main.add_command(tune)
main.add_command(explain)
main.add_command(evaluate)


@main.command()
@_MODEL
@click.option("--to", "target", type=ExportTarget(), required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="New folder to write to."
)
@click.option(
    "--min-recall",
    type=Finite(0, 1),
    default=0.95,
    show_default=True,
    help="Refuse an index below this.",
)
@click.option(
    "--encoding",
    type=click.Choice(("vectors", "fde")),
    default="vectors",
    show_default=True,
    help="fde: items that one vector for all interests of a user searches.",
)
@click.option("--fde-bits", type=click.IntRange(0, 10), help="Hyperplanes; default: 3.")
@click.option("--fde-repetitions", type=COUNT, help="Default: 8.")
@_URI
@_JSON
def export(
    model: str,
    target: str,
    out: Path,
    min_recall: float,
    encoding: str,
    fde_bits: int | None,
    fde_repetitions: int | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Export item vectors or an index for ANN serving, its recall measured.

    A two-tower with several interests searches with each of a user's vectors and merges, or
    with one, of --encoding fde, which is wider and finds most of the same; export.json says how.

    A ranker goes --to onnx: one graph from hashed values to probabilities, checked against the
    model and timed.

    Example: recsys export models:/demo@champion --to faiss --out index
    """
    encoded = None
    if encoding == "fde":
        encoded = (3 if fde_bits is None else fde_bits, fde_repetitions or 8)
    elif fde_bits is not None or fde_repetitions is not None:
        raise click.UsageError("--fde-bits and --fde-repetitions go with --encoding fde")
    facts = export_model(resolve_model(model, tracking_uri), target, out, min_recall, encoded)
    if as_json:
        click.echo(json_format.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            click.echo(f"{name}: {value}")


main.add_command(score)


@main.command()
@_MODEL
@click.option("--name", required=True, help="Registered model to add a version to.")
@click.option("--alias", help="Alias to move to the new version.")
@_URI
@_JSON
def register(
    model: str, name: str, alias: str | None, tracking_uri: str | None, as_json: bool
) -> None:
    """Add a model to the MLflow registry as a new version.

    Example: recsys register runs/two_tower-.../bundle/0123456789abcdef --name shop
    """
    from recsys.bundle.directory import Bundle
    from recsys.serving.registry import register as add_version

    bundle = Bundle.open(resolve_model(model, tracking_uri))
    version = add_version(bundle, name, uri=tracking_uri, alias=alias)
    if as_json:
        click.echo(json_format.dumps({"name": name, "version": version, "alias": alias}))
    else:
        click.echo(f"registered models:/{name}/{version}" + (f" as @{alias}" if alias else ""))


@main.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option("--alias", default="champion", show_default=True)
@_URI
def promote(name: str, version: int, alias: str, tracking_uri: str | None) -> None:
    """Point an alias at a version, after its bundle was verified.

    Example: recsys promote shop 3 --alias champion
    """
    from recsys.serving.registry import promote as move_alias

    move_alias(name, version, alias, uri=tracking_uri)
    click.echo(f"models:/{name}@{alias} is now version {version}")


@main.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@_URI
def sync(run_dir: Path, tracking_uri: str | None) -> None:
    """Deliver to MLflow what a run could not deliver while the server was down.

    Example: recsys sync runs/two_tower-20260101-120000
    """
    from recsys.training.search.tracked import deliver_search

    delivered = deliver_search(run_dir, uri=tracking_uri)
    click.echo(f"sent {delivered.sent} records, {delivered.left} left")


if __name__ == "__main__":
    main()
