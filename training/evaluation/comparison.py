"""What a comparison of trained models found: the same queries or rows, differences with intervals.

Differences are a model's value minus that of the first model, on the same queries.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recsys.core.errors import NotFoundError
from recsys.core.strict import nearest
from recsys.metrics.classification import Interval
from recsys.metrics.intervals import Difference
from recsys.training.evaluation.results import Shown

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""The slice of all queries or rows."""


@dataclass(frozen=True)
class Measured:
    """A value with its 95 % interval, and how it differs from the first model's.

    less: the difference to the first model; None: it is the first model's. queries: how many
    queries or rows it is of.
    """

    value: Interval
    less: Difference | None
    queries: int


Slices = Mapping[str, Mapping[str, Measured]]
"""Slice -> metric -> what was measured."""


@dataclass(frozen=True)
class ComparedModel:
    """How one model did.

    Attributes:
        name: what it is called here, unlike any other.
        kind: `model.kind`; of a plain model what it is.
        model_id: of its bundle; "" where it is a plain model, fitted for this comparison.
        slices: its metrics, overall (`ALL`) and within slices.
        beaten_by: the plain model with the best metric that decides, where that is better.
        behind: by how much: the model's metric minus that one's; negative where more is better.
    """

    name: str
    kind: str
    model_id: str
    slices: Slices
    beaten_by: str | None = None
    behind: Difference | None = None

    @property
    def metrics(self) -> Mapping[str, Measured]:
        """Its metrics over all queries or rows."""
        return self.slices[ALL]

    @property
    def is_plain(self) -> bool:
        """Whether it is a baseline."""
        return not self.model_id


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Several models on the same queries or rows; the others are compared with the first.

    Attributes:
        models: the models, then the plain ones.
        metric: the one that decides.
        headline: the metrics to show first, the one that decides before all.
        less_is_better: metrics of which that is so.
        asked: what was answered: "users", "events" or "rows".
        protocol: words on data, split and queries.
        warnings: why figures may be too good, or not be compared.
        left_out: plain models that are missing, name -> why.
    """

    models: tuple[ComparedModel, ...]
    metric: str
    asked: str
    protocol: Mapping[str, str]
    headline: tuple[str, ...]
    less_is_better: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> ComparedModel:
        """The model that the others are compared with."""
        return self.models[0]

    @property
    def trained(self) -> tuple[ComparedModel, ...]:
        """The models without the plain ones."""
        return tuple(one for one in self.models if not one.is_plain)

    def gain(self, name: str, metric: str | None = None) -> Difference:
        """Return how much better model `name` is than the first; negative: how much worse.

        metric: None: the one that decides.

        Raises:
            NotFoundError: there is no such model, or metric.
        """
        metric = metric or self.metric
        known = {one.name: one for one in self.models}
        if name not in known:
            names = ", ".join(known)
            hint = nearest(name, list(known))
            raise NotFoundError(f"no model '{name}' was compared{hint}; those are: {names}")
        model = known[name]
        if metric not in model.metrics:
            hint = nearest(metric, list(model.metrics))
            raise NotFoundError(f"no metric '{metric}' was compared{hint}")
        less = model.metrics[metric].less
        if less is None:
            return Difference(0.0, 0.0, 0.0)
        if metric in self.less_is_better:
            return Difference(-less.mean, -less.high, -less.low)
        return less

    def to_frame(self) -> "pd.DataFrame":
        """Return a row a model, slice and metric.

        Columns: `model`, `slice` ("all" of all queries), `metric`, `value`, `low`, `high`, then
        `difference`, `difference_low`, `difference_high` to the first model, whose own are NaN,
        and `queries`. The intervals are of 95 %.
        """
        import pandas as pd

        columns = ("model", "slice", "metric", "value", "low", "high")
        further = ("difference", "difference_low", "difference_high", "queries")
        rows = [
            (model.name, *self._row(one, place))
            for model in self.models
            for place, one in _each(model.slices)
        ]
        return pd.DataFrame(rows, columns=[*columns, *further])

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, as `--json` prints it."""
        return {
            "metric": self.metric,
            "protocol": dict(self.protocol),
            "warnings": list(self.warnings),
            "left_out": dict(self.left_out),
            "models": [self._plain(model) for model in self.models],
        }

    def _plain(self, model: ComparedModel) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": model.name,
            "kind": model.kind,
            "model_id": model.model_id or None,
            "beaten_by": model.beaten_by,
            "slices": {},
        }
        for (inside, metric), one in _each(model.slices):
            values: dict[str, Any] = {"value": _known(one.value.value)}
            values["interval"] = [_known(one.value.low), _known(one.value.high)]
            if one.less is not None:
                values["difference"] = _known(one.less.mean)
                values["difference_interval"] = [_known(one.less.low), _known(one.less.high)]
            values["queries"] = one.queries
            found["slices"].setdefault(inside, {})[metric] = values
        found["metrics"] = found["slices"].pop(ALL)
        return found

    @staticmethod
    def _row(one: Measured, place: tuple[str, str]) -> tuple[Any, ...]:
        nan, less = float("nan"), one.less
        difference = (nan, nan, nan) if less is None else (less.mean, less.low, less.high)
        return (*place, one.value.value, one.value.low, one.value.high, *difference, one.queries)


def _each(slices: Slices) -> Iterator[tuple[tuple[str, str], Measured]]:
    """Yield slice and metric with what was measured."""
    for inside, metrics in slices.items():
        for metric, one in metrics.items():
            yield (inside, metric), one


def _known(value: float) -> float | None:
    """Return a value as JSON has it: None where it is not defined."""
    return value if math.isfinite(value) else None
