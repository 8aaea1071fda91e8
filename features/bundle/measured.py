"""What a bundle keeps of the evaluation of its model, and of the plain models beside it.

    test        metric -> value of the model on the test part
    validation  the same on the validation part, in place of `test` where no row is test
    intervals   metric -> [low, high], the ends of its 95 % interval
    baselines   name -> metric -> value, of the models it was compared with on the same queries
    decides     the metric that decides between models
    protocol    words on split, rows and queries
    chosen_by   of a model trained on all rows: which model's training chose its settings, and what
                that one's bundle keeps; nothing of it was measured of this model

Bundles of older engines hold the first alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from recsys.bundle.directory import Bundle
from recsys.features.bundle.files import read_metrics

Values = Mapping[str, float]
_FAR = 1000
TEST, VALIDATION = "test", "validation"
"""Parts of a log that a finished model is measured on."""
TRACKED = {TEST: "test", VALIDATION: "validation_at_end"}
"""What the names of metrics in MLflow begin with, by the part that a finished model is measured on;
`validation/...` are the points of the training's curves."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The metrics of a bundle; see the module's text."""

    test: Values
    validation: Values = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    baselines: Mapping[str, Values] = field(default_factory=dict)
    decides: str = ""
    protocol: Mapping[str, str] = field(default_factory=dict)
    chosen_by: "ChosenBy | None" = None

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Read what a bundle keeps."""
        return cls.of_json(read_metrics(bundle))

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        between = {name: (low, high) for name, (low, high) in raw.get("intervals", {}).items()}
        found = {"test": {}, **raw, "intervals": between}
        chosen = raw.get("chosen_by")
        if chosen is not None:
            kept = cls.of_json(chosen["kept"])
            found["chosen_by"] = ChosenBy(chosen["model_id"], chosen["run"], kept)
        return cls(**found)

    @property
    def part(self) -> str | None:
        """The part that the model was measured on; None: nothing was held out."""
        return TEST if self.test else VALIDATION if self.validation else None

    @property
    def values(self) -> Values:
        """The metrics of the model on that part."""
        return self.test or self.validation

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as a bundle holds them."""
        more: dict[str, Any] = {}
        if self.validation:
            more["validation"] = dict(self.validation)
        if self.chosen_by is not None:
            kept = self.chosen_by.kept.to_json()
            more["chosen_by"] = {**vars(self.chosen_by), "kept": kept}
        return {
            "test": dict(self.test),
            **more,
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
        best, own = self.best_baseline, self.values.get(self.decides)
        if best is None or own is None or best[1] <= own:
            return None
        return (
            f"on its {self.part} part the plain model {best[0]} was better: {self.decides} "
            f"{best[1]:.4f}, its own {own:.4f}"
        )

    def headline(self, most: int) -> dict[str, float]:
        """Return at most so many metrics: the one that decides, its length of list, others."""
        own, order = _length(self.decides), {name: place for place, name in enumerate(self.values)}

        def rank(name: str) -> tuple[bool, int, bool, int]:
            length = _length(name)
            away = abs(length - own) if length else own * _FAR
            return name != self.decides, away, name not in self.intervals, order[name]

        return {name: self.values[name] for name in sorted(self.values, key=rank)[:most]}


@dataclass(frozen=True)
class ChosenBy:
    """The model whose training chose the settings of one that was trained on all rows.

    model_id: the hash of its bundle. run: the name of its run's folder; "" where its bundle was in
    none. kept: what its bundle keeps of its evaluation.
    """

    model_id: str
    run: str
    kept: Kept

    @property
    def words(self) -> str:
        """Name run and model."""
        model = f"model {self.model_id}"
        return f"run {self.run} ({model})" if self.run else model


def _length(metric: str) -> int:
    """Return the length of list of a metric; 0 where it has none."""
    of = metric.rpartition("_at_")[2]
    return int(of) if of.isdecimal() else 0
