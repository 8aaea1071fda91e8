"""What `recsys tune` searches of a ranker by default."""

from recsys.training.config.ranges import Choice, Range, Space
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.space import model_sizes, rates_and_batches, table_width

_MODEL: Space = {
    "hidden": Choice(([128], [256, 128], [128, 64], [400, 400])),
    "second_hidden": Choice(([128], [256, 128], [128, 64], [400, 400])),
    "dropout": Range(0.0, 0.5),
    "cross_layers": Choice((1, 2, 3, 4)),
    "layers": Choice((1, 2, 3)),
    "heads": Choice((1, 2, 4)),
    "head_dim": Choice((8, 16, 32)),
    "structure": Choice(("parallel", "serial")),
    "experts": Choice((2, 4, 8)),
    "towers": Choice(([], [32], [64])),
    "blocks": Choice((1, 2, 3, 5)),
    "block_dim": Choice((32, 64, 128)),
}
"""By the name of a model's setting, whichever kinds have it."""
_OF_ONE_WEIGHT = ("logistic",)
"""Kinds for which the width of a table's row means nothing, as they take its mean for a weight,
and to which decay does harm."""


def ranker_space(config: RankerExperiment) -> Space:
    """Return what is searched, around what `config` has."""
    space = rates_and_batches(config)
    if config.model.kind not in _OF_ONE_WEIGHT:
        # The best one differs tenfold from log to log.
        space["embedding.weight_decay"] = Range(1e-6, 0.3, log=True)
        space |= table_width(config)
    if not config.data.stream:
        space["training.id_dropout"] = Range(0.0, 0.3)
    return space | model_sizes(config, _MODEL)
