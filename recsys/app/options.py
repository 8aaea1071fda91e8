"""Arguments and options of several commands; numbers out of range are refused at once."""

import math
from pathlib import Path
from typing import Any

import click

from recsys.core.remote.path import path_at


class Place(click.Path):
    """A path of this machine, or the address of a store (`s3://bucket/...`)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        return path_at(value)


PLACE = Place()
COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**32 - 1)
"""What NumPy, scikit-learn, torch and Optuna all take."""


CONFIG = click.argument("config", type=PLACE)
MODEL = click.argument("model")


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    context.meta[AS_JSON] = value
    return value


AS_JSON = "recsys.json"
"""Whether the command was asked for JSON, in `click.Context.meta`."""
JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_note_json,
    help="Print one JSON document; of an error too, its fields.",
)
URI = click.option("--tracking-uri", help="MLflow store; default: mlflow.db in this folder.")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a configuration key."
)
OTHER = click.option(
    "--other",
    multiple=True,
    metavar="NAME=PATH",
    help="A side table of users or items, or a relation.",
)


class Finite(click.FloatRange):
    """A range of numbers without nan, which is in every range of click's, and infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, if it is one."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def named_paths(options: tuple[str, ...]) -> dict[str, str]:
    """Return NAME=PATH options as a mapping."""
    for option in options:
        if "=" not in option:
            raise click.UsageError(f"--other {option}: expected NAME=PATH")
    return dict(option.split("=", 1) for option in options)
