"""`recsys tune ...`: studies that end in a configuration; like `recsys.cli`, reaches every room."""

import json as json_format
from pathlib import Path

import click

from recsys.cli_jobs import progress_lines


@click.group()
def tune() -> None:
    """Studies on your data that end in a better configuration.

    Example: recsys tune embedding recsys.yaml
    """


@tune.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--lookups",
    type=click.IntRange(min=1),
    help="Table reads a row for all features together; default: two a feature.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
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
    type=click.Path(path_type=Path),
    default=Path("recsys-tuned.yaml"),
    show_default=True,
    help="Configuration to write.",
)
@click.option("--force", is_flag=True, help="Overwrite it.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a configuration key."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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
    trains that plan beside two that need no search, and writes the configuration of the best.

    Example: recsys tune embedding recsys.yaml --lookups 16 --out recsys-tuned.yaml
    """
    from recsys.errors import ConfigError
    from training.config import load_config
    from training.embedding_study_output import lines, tracked_study, tuned_config

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; give --force to overwrite it, or another --out")
    if not out.resolve().parent.is_dir():  # said before the work, not after it
        raise ConfigError(f"--out {out}: there is no folder {out.resolve().parent}; make it first")
    settings = load_config(config, overrides)
    found = tracked_study(
        settings,
        lookups=lookups,
        epochs=epochs,
        max_lookups=max_lookups,
        say=progress_lines(as_json),
    )
    out.write_text(tuned_config(settings, found))
    if as_json:
        click.echo(json_format.dumps({**found.to_json(), "config": str(out)}, indent=1))
        return
    click.echo("\n".join(lines(settings, found)))
    click.echo(f"\nwrote {out}; next: recsys train {out}")
