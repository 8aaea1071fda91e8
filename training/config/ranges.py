"""What a search may set a key to: a range of numbers, or one of several values."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them; `log`: uniform in the logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False
    step: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a file would say of it."""
        found: dict[str, Any] = {"low": self.low, "high": self.high}
        found |= {"step": self.step} if self.step is not None else {}
        return found | {name: True for name in ("log", "integer") if getattr(self, name)}

    def holds(self, value: Any) -> bool:
        """Whether `value` could be drawn."""
        if not isinstance(value, int if self.integer else int | float):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9

    def ends(self) -> tuple[Any, ...]:
        """Return the values to check."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of `values`, in no order."""

    values: tuple[Any, ...]

    def to_json(self) -> list[Any]:
        """Return what a file would say of it."""
        return list(self.values)

    def holds(self, value: Any) -> bool:
        """Whether `value` could be drawn."""
        return value in self.values

    def ends(self) -> tuple[Any, ...]:
        """Return the values to check."""
        return self.values


Space = dict[str, Range | Choice]
"""By full key of the configuration."""


def around(value: float) -> Range:
    """Return the range from a tenth of a rate to five times as much."""
    return Range(float(f"{value / 10:.3g}"), float(f"{value * 5:.3g}"), log=True)


def choice(own: Any, values: list[Any]) -> Choice:
    """Return one of `values`, or what the configuration says."""
    return Choice(tuple(values if own in values else [own, *values]))
