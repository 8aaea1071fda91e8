"""Refuse settings of a two-tower's candidates that do not go together."""

from recsys.core.errors import ConfigError
from recsys.training.families.two_tower.config import TwoTowerTrainingConfig


def check_candidates(training: TwoTowerTrainingConfig, *, smoothed: bool) -> None:
    """Refuse what is about sampled candidates where there are none.

    smoothed: whether items are smoothed over the catalogue.

    Raises:
        ConfigError: what, and why.
    """
    asked = {
        "training.logq_correction: streaming": training.logq_correction == "streaming",
        "training.cached_negatives": training.cached_negatives > 0,
        "training.hard_negatives.count": training.hard_negatives.count > 0,
    }
    for key, is_on in asked.items():
        if is_on and (smoothed or training.loss.whole_catalogue):
            cause = "model.smoothing" if smoothed else "training.loss: full_softmax"
            raise ConfigError(
                f"{key} is about sampled candidates, and {cause} has the whole catalogue in every "
                "batch: leave one of them out"
            )
