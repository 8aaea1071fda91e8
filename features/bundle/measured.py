"""What a bundle keeps of the evaluation of its model, and of the plain models beside it.

    test        metric -> value of the model on the test part
    intervals   metric -> [low, high], the ends of its 95 % interval
    baselines   name -> metric -> value, of the models it was compared with on the same queries
    decides     the metric that decides between models
    protocol    words on split, rows and queries

Bundles of older engines hold the first alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from recsys.bundle.directory import Bundle
from recsys.features.bundle.files import read_metrics

Values = Mapping[str, float]
_FAR = 1000


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The metrics of a bundle; see the module's text."""

    test: Values
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    baselines: Mapping[str, Values] = field(default_factory=dict)
    decides: str = ""
    protocol: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Read what a bundle keeps."""
        raw = read_metrics(bundle)
        between = {name: (low, high) for name, (low, high) in raw.get("intervals", {}).items()}
        return cls(**{"test": {}, **raw, "intervals": between})

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as a bundle holds them."""
        return {
            "test": dict(self.test),
            "intervals": {name: list(one) for name, one in self.intervals.items()},
            "baselines": {name: dict(one) for name, one in self.baselines.items()},
            "decides": self.decides,
            "protocol": dict(self.protocol),
        }

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """The plain model with the best metric that decides, and that; None: it is not known."""
        known = {
            name: one[self.decides] for name, one in self.baselines.items() if self.decides in one
        }
        if not known:
            return None
        best = max(known, key=lambda name: known[name])
        return best, known[best]

    @property
    def doubt(self) -> str | None:
        """Say that a plain model was better than the model, if one was."""
        best, own = self.best_baseline, self.test.get(self.decides)
        if best is None or own is None or best[1] <= own:
            return None
        return (
            f"on its test part the plain model {best[0]} was better: {self.decides} {best[1]:.4f}, "
            f"its own {own:.4f}"
        )

    def headline(self, most: int) -> dict[str, float]:
        """Return at most so many metrics: the one that decides, its length of list, others."""
        own, order = _length(self.decides), {name: place for place, name in enumerate(self.test)}

        def rank(name: str) -> tuple[bool, int, bool, int]:
            length = _length(name)
            away = abs(length - own) if length else own * _FAR
            return name != self.decides, away, name not in self.intervals, order[name]

        return {name: self.test[name] for name in sorted(self.test, key=rank)[:most]}


def _length(metric: str) -> int:
    """Return the length of list of a metric; 0 where it has none."""
    of = metric.rpartition("_at_")[2]
    return int(of) if of.isdecimal() else 0
