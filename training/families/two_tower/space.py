"""What `recsys tune` searches of a two-tower by default."""

from recsys.training.config.ranges import Space, around, choice
from recsys.training.families.retrieval.space import retrieval_space
from recsys.training.families.two_tower.config import TwoTowerExperiment


def two_tower_space(config: TwoTowerExperiment) -> Space:
    """Return what is searched, around what `config` has.

    Where it has a self-supervised loss, its weight and masking, too. Without one none is searched:
    none gained for sure on logs of more rows than items (`recsys init` says where one may).
    """
    space, settings = retrieval_space(config), config.training.self_supervision
    if settings.kind == "none" or not settings.weight:
        return space
    key = "training.self_supervision"
    space[f"{key}.weight"] = around(settings.weight)
    if settings.kind == "contrastive" and settings.dropout:
        space[f"{key}.masking"] = choice(settings.masking, ["random", "correlated", "none"])
    return space
