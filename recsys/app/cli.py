"""The command line: `recsys COMMAND`. Commands import what they need, so help is quick."""

import atexit
import gc
import json as json_format
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from recsys.app.cli_compare import compare
from recsys.app.cli_delta import patch
from recsys.app.cli_evaluate import evaluate
from recsys.app.cli_explain import explain
from recsys.app.cli_export import export, verify
from recsys.app.cli_models import promote, register, sync
from recsys.app.cli_plan import plan as plan_sizes
from recsys.app.cli_prepare import prepare
from recsys.app.cli_recount import recount
from recsys.app.cli_score import score
from recsys.app.cli_similar import similar
from recsys.app.cli_tune import tune
from recsys.app.options import AS_JSON, CONFIG, COUNT, JSON, PLACE, SEED, SET, URI
from recsys.app.ranks import wait_for_last_words
from recsys.app.stopping import stopping_in_order
from recsys.core.errors import UserError
from recsys.core.folders import check_folder
from recsys.core.imports import uncollected
from recsys.core.system_errors import system_error
from recsys.core.visible import visible

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
            with stopping_in_order(context):
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
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            code = wait_for_last_words(error)
            if code is not None:
                click.echo("lost another rank; its own message says why", err=True)
                sys.exit(code)
            words = system_error(error)
            if words is None or context.params.get("debug"):
                raise
            click.echo(f"Error: {visible(words)}", err=True)
            sys.exit(1)


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
    6 not better and so not promoted, 12 training diverged, 69 a store does not answer, 75 another
    rank or worker failed, or MLflow did not take all (sync): run it again, 129 terminal closed,
    130 interrupted, 143 terminated.
    """  # noqa: D301


@main.command()
@click.option(
    "--out",
    type=PLACE,
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
@click.argument("tables", nargs=-1)
@click.option(
    "--dataset",
    metavar="NAME",
    help="TABLES is the folder of a public data set; `list` names all that are known.",
)
@click.option("--protocol", metavar="NAME", help="How papers split that data set.")
@click.option("--out", type=PLACE, default=Path("recsys.yaml"), show_default=True)
@click.option("--force", is_flag=True, help="Overwrite an existing configuration.")
def init(
    tables: tuple[str, ...], dataset: str | None, protocol: str | None, out: Path, force: bool
) -> None:
    """Look at your tables and write a commented configuration.

    Example: recsys init ratings.parquet movies.parquet users.parquet

    A public data set: recsys init --dataset movielens-1m ml-1m/
    """
    from recsys.app.proposing import init as propose
    from recsys.core.errors import ConfigError

    if dataset == "list":
        from recsys.features.public_data.open import lines

        click.echo("\n".join(lines()))
        return
    if not tables:
        raise click.MissingParameter(param_type="argument", param_hint="TABLES")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; give --force to overwrite it, or another --out")
    found = propose(*tables, dataset=dataset, protocol=protocol, out=out, force=force)
    for line in found.summary:
        click.echo(visible(line))
    if found.unsure:
        click.echo("\nPlease check these choices:")
    for sentence in found.unsure:
        click.echo(f"  - {visible(sentence)}")
    click.echo(f"\nwrote {out}; next: recsys check {out}")


@main.command()
@CONFIG
@SET
@click.option("--html", type=PLACE, help="Page to write: what was found, with charts.")
@JSON
def check(config: Path, overrides: tuple[str, ...], html: Path | None, as_json: bool) -> None:
    """Validate configuration and data without training.

    What training would refuse is refused here, in the same words. It ends with `ok`, or with
    `readable` where there are warnings: training runs, but look at these first.

    Example: recsys check recsys.yaml --html data.html
    """
    with uncollected():
        from recsys.app.checking import check as inspect
        from recsys.training.families.load import load_config

    report = inspect(load_config(config, overrides), html=html)
    if as_json:
        click.echo(json_format.dumps(report.to_json(), indent=1))
    else:
        click.echo(visible("\n".join(report.lines())))
        if html is not None:
            click.echo(f"page: {html}")


@main.command()
@click.argument("config", type=PLACE, required=False)
@click.option("--resume", type=PLACE, metavar="RUN_DIR", help="Continue a run.")
@click.option(
    "--workers",
    type=COUNT,
    default=1,
    show_default=True,
    help="Processes on this machine that train together, the table sharded over them.",
)
@click.option("--warm-start", metavar="MODEL", help="Start from the weights of this model.")
@click.option(
    "--compatible-with",
    metavar="MODEL",
    help="Let queries search the item index of this earlier model, too; measured.",
)
@click.option("--final", is_flag=True, help="Train on all rows in the end, test rows among them.")
@click.option(
    "--from", "chosen", metavar="MODEL", help="With --final: take what this model's run chose."
)
@click.option("--report/--no-report", default=True, help="Whether report.html is drawn.")
@URI
@SET
@JSON
def train(
    config: Path | None,
    workers: int,
    overrides: tuple[str, ...],
    as_json: bool,
    **start: Any,
) -> None:
    """Train, evaluate, bundle and track one model.

    --warm-start takes a bundle folder, a run id or models:/name@alias, and continues from its
    weights: on newer rows, with other features, or with a larger embedding.num_rows.

    --compatible-with rotates the vectors of a two-tower or a model of sessions onto those of an
    earlier one, which changes no list, and measures what the earlier model's item index answers to
    the new queries. The model claims to be compatible where that is compatible_share or more of
    what the earlier queries get there.

    --final trains and evaluates as ever, and then once more on all rows, for as many epochs as were
    best, with the calibration and all else that was chosen. --final --from MODEL does the second
    alone, with what the training of MODEL chose (a run or bundle folder, a run id,
    models:/name@alias), as MODEL was configured; a CONFIG beside it may name newer data. A final
    model has no test figures of its own.

    Example: recsys train recsys.yaml --set training.epochs=5
    """
    from recsys.app.printing import print_run
    from recsys.app.starting import Start, planned
    from recsys.app.training import launch_workers, train_planned
    from recsys.training.families.load import load_config

    begin = Start(**start)
    has_model = begin.resume is not None or begin.chosen is not None
    if (config is None and not has_model) or (config is not None and begin.resume is not None):
        raise click.UsageError(
            "give a configuration, --resume RUN_DIR, or --final --from MODEL, one of them"
        )
    if begin.chosen is not None and not begin.final:
        raise click.UsageError("--from goes with --final")
    if begin.resume is not None and (
        overrides or begin.warm_start or begin.compatible_with or begin.chosen
    ):
        raise click.UsageError(
            "--set, --warm-start, --compatible-with and --from do not go with --resume: a run "
            "keeps its configuration"
        )
    if workers > 1 and begin.final and begin.chosen is None and as_json:
        raise click.UsageError(
            "--json prints one document, and --final with --workers trains two models: train "
            "first, then --final --from RUN_DIR"
        )
    given = None if config is None else load_config(config, overrides)
    plan = planned(given, replace(begin, overrides=overrides if given is None else ()))
    if workers > 1 and not plan.then_final:
        sys.exit(launch_workers(plan, workers, quiet=as_json)[1])
    run = train_planned(plan, workers, quiet=as_json)
    if run is not None and workers == 1:  # ranks report themselves; None: not the first of them
        print_run(run, as_json=as_json)


_BEFORE_REGISTERING = (tune, explain, similar, evaluate, compare, recount, export, verify, score)
for _command in (prepare, *_BEFORE_REGISTERING, patch, register, promote, sync, plan_sizes):
    main.add_command(_command)


if __name__ == "__main__":
    main()
