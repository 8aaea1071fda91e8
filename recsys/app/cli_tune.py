"""`recsys tune ...`: studies that end in a configuration."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys.app.options import CONFIG, COUNT, JSON, PLACE, SEED, SET, Finite
from recsys.app.progress import printed
from recsys.core.atomic import write_whole

if TYPE_CHECKING:
    from recsys.training.config.experiment import ExperimentConfig
    from recsys.training.config.ranges import Space
    from recsys.training.search.tuning import Budget, Found


class _SearchFirst(click.Group):
    """`tune CONFIG ...` means `tune search CONFIG ...`: what names no command goes there."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *context.help_option_names}:
            args = ["search", *args]
        return super().parse_args(context, args)


@click.group(cls=_SearchFirst, subcommand_metavar="[CONFIG | COMMAND] [OPTIONS]...")
def tune() -> None:
    """Searches on your data that end in a better configuration.

    \b
      recsys tune recsys.yaml --minutes 30     the same as: recsys tune search recsys.yaml ...
      recsys tune embedding recsys.yaml
    """  # noqa: D301


@tune.command()
@CONFIG
@click.option("--trials", type=COUNT, help="Of the search in all, resumed or not.")
@click.option(
    "--minutes",
    type=Finite(min=0, min_open=True),
    help="Of this command; whichever of both ends first.",
)
@click.option("--metric", help="Validation metric to maximise; default: training.metric.")
@click.option(
    "--space",
    "space_file",
    type=PLACE,
    help="YAML file of what to search; default: the section tune, else what suits the model.",
)
@click.option("--show-space", is_flag=True, help="Print what would be searched, and stop.")
@click.option(
    "--out",
    type=PLACE,
    default=Path("recsys-tuned.yaml"),
    show_default=True,
    help="Configuration to write.",
)
@click.option("--force", is_flag=True, help="Overwrite it.")
@click.option(
    "--storage",
    type=PLACE,
    help="SQLite file that keeps the trials; default: tune.db next to --out.",
)
@click.option("--name", help="Of the search in that file; default: the configuration's name.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@SET
@JSON
def search(config: Path, **options: Any) -> None:
    """Search better settings of a model with Optuna, evaluated on the validation part.

    The given configuration is trial 0, so the best is never worse on the validation part;
    the test part is not looked at. What falls behind is pruned by epoch. The same command again
    continues where it was stopped. Each trial is a run in MLflow, nested in that of the search.

    A space names keys of model, embedding and training, as in

    \b
      model.dim: [32, 64, 128]
      training.learning_rate: {low: 1e-4, high: 1e-2, log: true}

    and with `defaults: true` adds to what is searched otherwise.

    Example: recsys tune search recsys.yaml --minutes 30 (`search` may be left out)
    """  # noqa: D301
    from recsys.training.search.tuning import Budget

    trials, minutes = options["trials"], options["minutes"]
    if trials is None and minutes is None and not options["show_space"]:
        raise click.UsageError("give --trials, --minutes or both: when is the search to end?")
    settings, space = _settings_and_space(config, options)
    if options["show_space"]:
        click.echo(_space_text(space, options["as_json"]), nl=False)
        return
    _check_out(options["out"], options["force"])
    _searched(config, settings, space, Budget(trials, minutes), options)


def _settings_and_space(path: Path, options: dict[str, Any]) -> "tuple[ExperimentConfig, Space]":
    """Read the configuration and what to search: of a file, of its section, or by default."""
    from recsys.core.errors import NotFoundError
    from recsys.core.strict_yaml import read_yaml_file
    from recsys.training.families.load import load_config
    from recsys.training.families.pipeline.tuning import TunedApartError
    from recsys.training.search.space import space_of

    metric, file = options["metric"], options["space_file"]
    chosen = () if metric is None else (f"training.metric={metric}",)
    settings = load_config(path, (*options["overrides"], *chosen))
    if file is None:
        try:
            return settings, space_of(settings, settings.tune, f"{path}: tune")
        except TunedApartError as error:
            raise error.of_file(path) from None
    if not file.is_file():
        raise NotFoundError(f"--space {file}: no such file")
    return settings, space_of(settings, read_yaml_file(file), file)


def _space_text(space: "Space", as_json: bool) -> str:
    """Return the space as JSON, or as YAML with an entry a line."""
    from recsys.training.search.space import to_raw

    raw = to_raw(space)
    if as_json:
        return json_format.dumps(raw, indent=1) + "\n"
    shown = ""
    for key, entry in raw.items():
        text = json_format.dumps(entry)
        if isinstance(entry, dict):
            fields = (f"{name}: {json_format.dumps(value)}" for name, value in entry.items())
            text = "{" + ", ".join(fields) + "}"
        shown += f"{key}: {text}\n"
    return shown


def _searched(
    path: Path,
    settings: "ExperimentConfig",
    space: "Space",
    budget: "Budget",
    options: dict[str, Any],
) -> None:
    from recsys.core.signals import Terminated
    from recsys.training.engine.run_home import local_folder
    from recsys.training.search import tuning
    from recsys.training.search.output import lines, to_json, tuned_config

    out, as_json = options["out"], options["as_json"]
    storage = options["storage"] or local_folder(out.parent) / "tune.db"
    storage.parent.mkdir(parents=True, exist_ok=True)
    named = {"storage": storage, "name": options["name"] or path.stem, "seed": options["seed"]}
    try:
        with printed(as_json):
            found: Found = tuning.search(settings, space, budget, **named)
    except Terminated as stopped:
        stopped.told = True
        click.echo(
            f"stopped; the trials that ended are kept in {storage}: the same command continues, "
            "and with --trials of as many as there are it writes the best so far",
            err=True,
        )
        raise
    write_whole(out, tuned_config(settings, found, out, path.resolve().parent))
    if as_json:
        click.echo(json_format.dumps({**to_json(found), "config": str(out)}, indent=1))
        return
    click.echo("\n".join(lines(found)))
    click.echo(f"\nwrote {out}; next: recsys train {out}")


def _check_out(out: Path, force: bool) -> None:
    """Refuse, before the work, what could not be written after it."""
    from recsys.core.errors import ConfigError

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; give --force to overwrite it, or another --out")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.resolve().parent}; make it first")


@tune.command()
@CONFIG
@click.option(
    "--lookups",
    type=COUNT,
    help="Table reads a row for all features together; default: two a feature.",
)
@click.option(
    "--epochs",
    type=COUNT,
    default=2,
    show_default=True,
    help="Of the search, and of each training that compares plans.",
)
@click.option(
    "--max-lookups",
    type=click.IntRange(1, 16),
    default=4,
    show_default=True,
    help="Most lookups of one feature.",
)
@click.option(
    "--out",
    type=PLACE,
    default=Path("recsys-tuned.yaml"),
    show_default=True,
    help="Configuration to write.",
)
@click.option("--force", is_flag=True, help="Overwrite it.")
@SET
@JSON
def embedding(
    config: Path,
    lookups: int | None,
    epochs: int,
    max_lookups: int,
    out: Path,
    force: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find out which features deserve how many lookups in the shared table (rankers).

    Learns gates on every lookup from the validation rows, keeps the lookups that are worth most,
    trains that plan and two that need no search, and writes the configuration of the best.

    Example: recsys tune embedding recsys.yaml --lookups 16 --out recsys-tuned.yaml
    """
    from recsys.training.embedding.output import lines, tuned_config
    from recsys.training.families.load import load_config
    from recsys.training.jobs.study import study_embedding

    _check_out(out, force)
    settings = load_config(config, overrides)
    with printed(as_json):
        found = study_embedding(settings, lookups=lookups, epochs=epochs, max_lookups=max_lookups)
    write_whole(out, tuned_config(settings, found))
    if as_json:
        click.echo(json_format.dumps({**found.to_json(), "config": str(out)}, indent=1))
        return
    click.echo("\n".join(lines(settings, found)))
    click.echo(f"\nwrote {out}; next: recsys train {out}")
