"""Numbers that commands take; what is out of range is refused before any work is done."""

import math
from typing import Any

import click

COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**32 - 1)
"""What NumPy, scikit-learn, torch and Optuna all take."""


class Finite(click.FloatRange):
    """A range of numbers without nan, which lies in every range of click's, and infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, if it is one."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number
