"""A condition on one column, as a configuration writes it."""

from typing import Self

from pydantic import model_validator

from recsys.core.strict import StrictModel
from recsys.data.feature_options import Name


class Condition(StrictModel):
    """Keep only the rows whose `column` is at least / at most / equal to / one of a value."""

    column: Name
    """Column that is looked at."""
    at_least: float | None = None
    """Smallest number that is kept."""
    at_most: float | None = None
    """Largest number that is kept."""
    one_of: tuple[str | int, ...] | None = None
    """Values that are kept."""

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.at_least is None and self.at_most is None and self.one_of is None:
            raise ValueError("a condition needs at_least, at_most or one_of")
        return self
