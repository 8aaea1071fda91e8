"""The command line: `recsys COMMAND`. Commands import what they need, so help is quick."""

import atexit
import gc
import json as json_format
import logging
import sys
from pathlib import Path
from typing import Any

import click

from recsys.app.cli_compare import compare
from recsys.app.cli_evaluate import evaluate
from recsys.app.cli_explain import explain
from recsys.app.cli_models import export, promote, register, sync
from recsys.app.cli_recount import recount
from recsys.app.cli_score import score
from recsys.app.cli_tune import tune
from recsys.app.options import AS_JSON, CONFIG, COUNT, JSON, SEED, SET, URI
from recsys.app.ranks import wait_for_last_words
from recsys.core.errors import UserError
from recsys.core.folders import check_folder

INTERRUPTED = 130


class _Commands(click.Group):
    """Turns the errors a user can act on into one message and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        # At its end Python would look through all that torch is made of, for a second or more.
        atexit.register(gc.freeze)
        # Libraries set up logging for the whole program; a command prints its own lines once.
        logger = logging.getLogger("recsys")
        handed_on, logger.propagate = logger.propagate, False
        try:
            return self._answer(context)
        finally:
            logger.propagate = handed_on

    def _answer(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            if context.params.get("debug"):
                raise
            if context.meta.get(AS_JSON):
                click.echo(json_format.dumps(error.fields()))
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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
    6 not better and so not promoted, 12 training diverged, 75 another rank failed,
    129 terminal closed, 130 interrupted, 143 terminated.
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
@SET
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
    from recsys.app.demo import demo as run_demo
    from recsys.training.families.registry import show_evaluation

    check_folder(out, "data, runs and recommendations")
    click.echo(f"drawing a world of {users:,} users, {items:,} items, {events:,} events")
    run = run_demo(
        out, users=users, items=items, events=events, seed=seed, noise=noise, overrides=overrides
    )
    assert run.evaluation is not None, "the run was trained here"
    show_evaluation(run.evaluation)
    click.echo(f"\nrecommendations: {out / 'recommendations' / run.bundle.name}")
    click.echo(f"bundle:          {run.bundle}")
    click.echo(f"report:          {run.report}")


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
    from recsys.app.experiments import init as propose
    from recsys.core.errors import ConfigError

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; give --force to overwrite it, or another --out")
    found = propose(*tables, out=out, force=force)
    for line in found.summary:
        click.echo(line)
    if found.unsure:
        click.echo("\nPlease check these choices:")
    for sentence in found.unsure:
        click.echo(f"  - {sentence}")
    click.echo(f"\nwrote {out}; next: recsys check {out}")


@main.command()
@CONFIG
@SET
@JSON
def check(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Validate configuration and data without training.

    Example: recsys check recsys.yaml
    """
    from recsys.app.experiments import check as inspect
    from recsys.training.families.load import load_config

    report = inspect(load_config(config, overrides))
    if as_json:
        click.echo(json_format.dumps(report.to_json(), indent=1))
    else:
        click.echo("\n".join(report.lines()))


@main.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Continue a run."
)
@click.option(
    "--workers",
    type=COUNT,
    default=1,
    show_default=True,
    help="Processes on this machine that train together, the table sharded over them.",
)
@click.option("--warm-start", metavar="MODEL", help="Start from the weights of this model.")
@URI
@SET
@JSON
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

    --warm-start takes a bundle folder, a run id or models:/name@alias, and continues from its
    weights: on newer rows, with other features, or with a larger embedding.num_rows.

    Example: recsys train recsys.yaml --set training.epochs=5
    """
    from recsys.app.printing import print_run
    from recsys.app.training import configured, launch_workers, train_once
    from recsys.training.families.load import load_config

    if (config is None) == (resume is None):
        raise click.UsageError("give a configuration or --resume RUN_DIR, one of the two")
    if resume is not None and (overrides or warm_start):
        raise click.UsageError(
            "--set and --warm-start do not go with --resume: a run keeps its configuration"
        )
    given = None if config is None else load_config(config, overrides)
    settings, run_dir = configured(given, resume, warm_start, tracking_uri)
    if workers > 1:
        sys.exit(launch_workers(settings, run_dir, workers, quiet=as_json)[1])
    run = train_once(settings, run_dir, quiet=as_json)
    if run is not None:  # None: one of several ranks, and not the one that reports
        print_run(run, as_json=as_json)


_BEFORE_REGISTERING = (tune, explain, evaluate, compare, recount, export, score)
for _command in (*_BEFORE_REGISTERING, register, promote, sync):
    main.add_command(_command)


if __name__ == "__main__":
    main()
