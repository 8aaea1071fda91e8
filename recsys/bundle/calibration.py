"""From a ranker's logits to probabilities: what undoes sampling, then what mends calibration.

    none         p = sigmoid(logit)
    temperature  p = sigmoid(logit / T) (Guo et al., "On Calibration of Modern Neural Networks",
                 ICML 2017, section 4.2)
    beta         p = sigmoid(a log q - b log(1 - q) + c), q = sigmoid(logit); a, b > 0 (Kull, Silva
                 Filho and Flach, "Beta calibration", AISTATS 2017, section 3)
    isotonic     p = f(logit), f non-decreasing and piecewise linear (Zadrozny and Elkan, KDD 2002)

The order of rows stays, but for ties that `isotonic` makes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Kind = Literal["none", "temperature", "beta", "isotonic"]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Calibrator:
    """Turns logits of a model into probabilities.

    offset: added to the logits first, for the rows that the model was trained on may have been
    sampled. temperature: T, above 0. slopes, shift: a and b, above 0, and c. logits, probabilities:
    the knots of f, ascending; outside of them f is constant. others: what does the same for further
    outcomes of a row, by name, in the order of the model's logits.
    """

    kind: Kind = "none"
    offset: float = 0.0
    temperature: float = 1.0
    slopes: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    logits: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    others: Mapping[str, "Calibrator"] = field(default_factory=dict)

    def probability(self, logits: Floats) -> NDArray[np.float64]:
        """Return the probability of label 1 for `logits` (N,) as the model gives them, (N,)."""
        if self.kind == "isotonic":
            z = logits.astype(np.float64) + self.offset
            return np.interp(z, self.logits, self.probabilities)
        return sigmoid(self.logit(logits))

    def logit(self, logits: Floats) -> NDArray[np.float64]:
        """Return the calibrated logits of `logits` (N,), (N,), of a kind that has such."""
        z = logits.astype(np.float64) + self.offset
        if self.kind != "beta":
            return z / self.temperature
        above, below = self.slopes  # log q is -log(1 + exp(-z)), and -log(1 - q) log(1 + exp(z))
        return below * np.logaddexp(0, z) - above * np.logaddexp(0, -z) + self.shift

    def by_outcome(self, logits: Floats) -> dict[str, NDArray[np.float64]]:
        """Return the probabilities of each outcome, (N,) each, by its name; "" is the label.

        logits: (N,) as the model gives them, or (N, T) where there are T outcomes.
        """
        if not self.others:
            return {"": self.probability(logits)}
        each = {"": self, **self.others}
        return {
            name: one.probability(column)
            for (name, one), column in zip(each.items(), logits.T, strict=True)
        }

    def to_json(self) -> str:
        """Return the calibrator as text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls._of(json.loads(text))

    @classmethod
    def _of(cls, raw: dict[str, Any]) -> Self:
        several = {name: tuple(own) for name, own in raw.items() if isinstance(own, list)}
        others = {name: cls._of(one) for name, one in raw.get("others", {}).items()}
        return cls(**{**raw, **several, "others": others})


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-z)) of each, without overflow."""
    small = np.exp(-np.abs(z))  # the exponent of the one sign that cannot overflow
    return np.where(z >= 0, 1 / (1 + small), small / (1 + small))
