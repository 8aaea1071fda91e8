"""From a ranker's logits to probabilities: what undoes sampling, then what mends calibration.

    none         p = sigmoid(logit)
    temperature  p = sigmoid(logit / T) (Guo et al., "On Calibration of Modern Neural Networks",
                 ICML 2017, section 4.2)
    isotonic     p = f(logit), f non-decreasing and piecewise linear (Zadrozny and Elkan, KDD 2002)

The order of rows stays, but for ties that `isotonic` makes.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Kind = Literal["none", "temperature", "isotonic"]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Calibrator:
    """Turns logits of a model into probabilities.

    offset: added to the logits first, for the rows that the model was trained on may have been
    sampled. temperature: T, above 0. logits, probabilities: the knots of f, ascending; outside
    of them f is constant.
    """

    kind: Kind = "none"
    offset: float = 0.0
    temperature: float = 1.0
    logits: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    def probability(self, logits: Floats) -> NDArray[np.float64]:
        """Return the probability of label 1 for `logits` (N,) as the model gives them, (N,)."""
        z = logits.astype(np.float64) + self.offset
        if self.kind == "isotonic":
            return np.interp(z, self.logits, self.probabilities)
        # The exponent of the one sign that cannot overflow.
        small = np.exp(-np.abs(z / self.temperature))
        return np.where(z >= 0, 1 / (1 + small), small / (1 + small))

    def to_json(self) -> str:
        """Return the calibrator as text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        knots = {name: tuple(raw[name]) for name in ("logits", "probabilities")}
        return cls(**{**raw, **knots})
