"""What `recsys tune` searches of a plain model by default."""

from recsys.training.config.ranges import Choice, Range, Space
from recsys.training.families.plain.config import PlainExperiment

_SPACE: Space = {
    "window_days": Choice((None, 7.0, 30.0, 90.0)),
    "neighbours": Choice((20, 50, 100, 200, 500)),
    "shrinkage": Range(0.5, 100.0, log=True),
    "l2": Range(1.0, 2000.0, log=True),
    "rank": Choice((64, 128, 256, 512)),
    "alpha": Range(0.0, 1.0),
    "order": Choice((4, 8, 12)),
    "flatness": Range(1.0, 15.0, log=True),
    "degree": Range(0.0, 0.5),
    "factors": Choice((32, 64, 128, 256)),
    "confidence": Range(2.0, 100.0, log=True),
    "l2_share": Range(0.05, 2.0, log=True),
    "steps": Choice((1, 3, 10, 20)),
    "lag_decay": Range(0.3, 1.0),
    "decay": Range(0.3, 1.0),
    "power": Range(0.2, 1.0),
    "backward": Range(0.0, 1.0),
    "recent": Choice((100, 500, 2000)),
    "idf_power": Range(0.0, 3.0),
}
"""By the names of settings; most kinds have two to six of them."""


def plain_space(config: PlainExperiment) -> Space:
    """Return what is searched of the settings that the kind of model has."""
    has_times = config.schema_.interactions.time is not None
    names = type(config.model).model_fields
    return {
        f"model.{name}": one
        for name, one in _SPACE.items()
        if name in names and (name != "window_days" or has_times)
    }
