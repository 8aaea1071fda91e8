"""The metrics of models that give lists, and the refusal of others."""

from typing import Any

from recsys.core.errors import ConfigError

METRICS = ("recall", "hit_rate", "ndcg", "mrr")


def check_metric(config: Any) -> None:
    """Refuse, before any work is done, a metric that is not computed.

    Raises:
        ConfigError: which, and what is.
    """
    names = [f"{name}_at_{k}" for k in config.evaluation.ks for name in METRICS]
    if config.training.metric not in names:
        raise ConfigError(
            f"training.metric: '{config.training.metric}' is not computed; evaluation.ks allows "
            f"{', '.join(names)}"
        )
