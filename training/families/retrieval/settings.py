"""Refuse settings of a model that retrieves, before any work is done."""

from recsys.retrieval.index.registry import require
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.families.list_metrics import check_metric
from recsys.training.families.plain.choose import check_baselines


def check_settings(config: RetrievalExperiment) -> None:
    """Refuse, before any work is done, a metric, a baseline or an index that is not available.

    Raises:
        ConfigError: which, and why.
    """
    check_metric(config)
    check_baselines(config)
    require(config.index.kind)
