"""From a retrieval model's scores to the probability of an interaction.

    z = slope * score + activity * log(1 + n) + intercept,   p = link(z)

with n the events in the user's history: active users interact more. The link is the logistic
function (Platt, "Probabilistic Outputs for Support Vector Machines", 1999) or an isotonic map of
z (Zadrozny and Elkan, KDD 2002). slope >= 0, so that the order of a user's items stays, but for
ties that an isotonic link makes. Campo et al., "Collaborative Metric Learning Recommendation
System: Application to Theatrical Movie Releases", https://arxiv.org/abs/1803.00202, put a
logistic regression on the distance and on what is known of the customer in the same way.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.calibration import Calibrator

Numbers = NDArray[np.generic]


@dataclass(frozen=True)
class PairCalibrator:
    """One such map.

    fitted_on: words on the items whose pairs it was fitted on. pairs, taken: how many, and how
    many of them have an interaction. audience_low, audience_high: 10 and 90 % quantiles over these
    items of the users of an item as a multiple of those expected; 1 where there are too few items.
    """

    slope: float = 1.0
    activity: float = 0.0
    intercept: float = 0.0
    link: Calibrator = field(default_factory=Calibrator)
    fitted_on: str = ""
    pairs: int = 0
    taken: int = 0
    audience_low: float = 1.0
    audience_high: float = 1.0

    def probability(self, score: Numbers, num_events: Numbers) -> NDArray[np.float64]:
        """Return the probability of each pair; the two arguments broadcast."""
        z = self.slope * score.astype(np.float64) + self.intercept
        return self.link.probability(z + self.activity * np.log1p(num_events.astype(np.float64)))

    @classmethod
    def _of(cls, raw: dict[str, Any]) -> Self:
        link = Calibrator.from_json(json.dumps(raw["link"]))
        return cls(**{**raw, "link": link})


@dataclass(frozen=True)
class InteractionProbability:
    """The calibration of a model: `known` for items with training rows, `new` for the others.

    period: a description of the time in which the interaction is to occur.
    """

    known: PairCalibrator
    new: PairCalibrator
    period: str

    def probability(
        self, score: Numbers, num_events: Numbers, is_new: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return the probability of each pair, (P,) of all arguments (P,)."""
        known, new = (one.probability(score, num_events) for one in (self.known, self.new))
        return np.where(is_new, new, known)

    def to_json(self) -> str:
        """Return the calibration as text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        return cls(PairCalibrator._of(raw["known"]), PairCalibrator._of(raw["new"]), raw["period"])
