"""The loss of a two-tower on a batch, as its configuration names it."""

from torch import Tensor

from recsys.data.batch import PairBatch
from recsys.layers.geometry import points_of
from recsys.losses.retrieval import (
    Negatives,
    Pairs,
    bce_loss,
    bpr_loss,
    cosine_contrastive_loss,
    covariance_loss,
    metric_loss,
    softmax_loss,
)
from recsys.models.two_tower import TwoTower
from recsys.training.config.retrieval import FullSoftmax, SampledSoftmax
from recsys.training.engine.ranks import ALONE, World
from recsys.training.families.two_tower.config import (
    Bce,
    Bpr,
    CosineContrastive,
    Metric,
    TwoTowerTrainingConfig,
)


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
        batch: who took what, and what is no negative.
        model: for its temperature and geometry.
        training: the loss, and whether sampling is corrected.
        num_items: size of the catalogue.
        world: the ranks.
    """
    loss = training.loss
    total = None if world.size == 1 else world.sum(float(batch.weight.sum()))[0]
    pairs = Pairs(batch.asks, batch.positive, batch.weight, total)
    log_probability_C = batch.log_inclusion if training.logq_correction else None
    scaled_BE = query_BE / model.temperature
    if isinstance(loss, SampledSoftmax | FullSoftmax):
        if isinstance(loss, FullSoftmax):
            log_probability_C = None
        return softmax_loss(scaled_BE, candidate_CE, pairs, batch.not_negative, log_probability_C)
    negatives = Negatives.of(batch.not_negative, len(candidate_CE), log_probability_C)
    if isinstance(loss, Bce):
        return bce_loss(scaled_BE, candidate_CE, pairs, negatives, loss.negative_weight)
    if isinstance(loss, Bpr):
        return bpr_loss(scaled_BE, candidate_CE, pairs, negatives)
    if isinstance(loss, CosineContrastive):
        return cosine_contrastive_loss(
            query_BE,
            candidate_CE,
            pairs,
            negatives,
            margin=loss.margin,
            negative_weight=loss.negative_weight,
        )
    assert isinstance(loss, Metric)
    hinge = metric_loss(
        query_BE,
        candidate_CE,
        pairs,
        negatives,
        margin=loss.margin,
        num_items=num_items,
        rank_weight=loss.rank_weight,
        worst=loss.negatives == "worst",
    )
    geometry = model.config.geometry
    spread = covariance_loss(points_of(query_BE.float(), geometry).flatten(0, -2))
    spread = spread + covariance_loss(points_of(candidate_CE.float(), geometry))
    return hinge + loss.covariance_weight * spread
