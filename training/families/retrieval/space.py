"""What `recsys tune` searches of a model that retrieves, by default."""

from recsys.training.config.ranges import Choice, Range, Space, choice
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.families.space import model_sizes, rates_and_batches, table_width

_MODEL: Space = {
    "dim": Choice((32, 64, 128)),
    "hidden": Choice(([128], [256, 128], [128, 64], [400, 400])),
    "dropout": Range(0.0, 0.5),
    "temperature": Range(0.03, 0.2, log=True),
    "history_length": Choice((20, 50, 100)),
}


def retrieval_space(config: RetrievalExperiment) -> Space:
    """Return what is searched, around what `config` has."""
    negatives = choice(config.training.uniform_negatives, [128, 512, 1024, 2048])
    return {
        **rates_and_batches(config),
        **table_width(config),
        "training.id_dropout": Range(0.0, 0.3),
        "training.uniform_negatives": negatives,
        **model_sizes(config, _MODEL),
    }
