"""The loss of a two-tower on a batch, as its configuration names it."""

from torch import Tensor

from recsys.data.batch import PairBatch
from recsys.losses.retrieval import Pairs
from recsys.models.two_tower import TwoTower
from recsys.training.engine.ranks import ALONE, World
from recsys.training.families.two_tower.config import TwoTowerTrainingConfig
from recsys.training.families.two_tower.losses import LOSSES, Encoded


def loss_of(
    query_BE: Tensor,
    candidate_CE: Tensor,
    batch: PairBatch,
    model: TwoTower,
    training: TwoTowerTrainingConfig,
    num_items: int,
    world: World = ALONE,
) -> Tensor:
    """Return the loss of vectors that the towers made of `batch`, a scalar.

    Of several ranks each returns its queries' share of the mean, against the candidates of all.

    Args:
        query_BE: (B, E), or (B, I, E) of several interests.
        candidate_CE: (C, E).
        batch: who interacted with what, and what is no negative.
        model: for its temperature and geometry.
        training: the loss, and whether sampling is corrected.
        num_items: size of the catalogue.
        world: the ranks.
    """
    total = None if world.size == 1 else world.sum(float(batch.weight.sum()))[0]
    made = Encoded(
        queries=query_BE,
        candidates=candidate_CE,
        pairs=Pairs(batch.asks, batch.positive, batch.weight, total),
        not_negative=batch.not_negative,
        log_probability=batch.log_inclusion if training.logq_correction else None,
        model=model,
        num_items=num_items,
    )
    return LOSSES[training.loss.kind](training.loss, made)
