"""The loss of a two-tower's batch, with all that its configuration adds to the batch's own rows."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.data.batch import PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.layers.geometry import vector_width
from recsys.models.two_tower import TwoTower
from recsys.sampling.candidates import columns_of, row_by_row
from recsys.sampling.frequency import StreamingFrequency
from recsys.sampling.negative_cache import NegativeCache
from recsys.training.engine.machine import autocast
from recsys.training.engine.ranks import World
from recsys.training.families.two_tower.candidates_checked import check_candidates
from recsys.training.families.two_tower.config import TwoTowerTrainingConfig
from recsys.training.families.two_tower.hard_negatives import HardNegativeMiner, TrainingItems
from recsys.training.families.two_tower.loss import loss_of
from recsys.training.families.two_tower.views import tower_views

BUCKETS_AN_ITEM = 4
"""Of each hash of the streaming frequencies: few items share one."""


class RetrievalObjective:
    """A batch to its loss, a scalar; `head` is what it remembers from step to step, if anything.

    Called once a step, in training: what it remembers moves on with every call.
    """

    def __init__(
        self,
        model: TwoTower,
        data: Dataset,
        training: TwoTowerTrainingConfig,
        world: World,
        device: torch.device,
    ) -> None:
        """Prepare what the configuration asks for.

        Raises:
            ConfigError: it asks for what the data, the loss or the number of ranks do not allow.
        """
        smoothed = model.smoothing is not None
        check_candidates(training, smoothed=smoothed)
        _check_ranks(training, world)
        self.model, self.training, self.world, self.device = model, training, world, device
        self.num_items, config = data.num_items, model.config
        width = vector_width(config.dim, config.geometry)
        self.views = tower_views(training.self_supervision, data, world, smoothed=smoothed)
        self.frequency = self.cache = self.miner = self.training_items = None
        if training.logq_correction == "streaming":
            self.frequency = StreamingFrequency(BUCKETS_AN_ITEM * data.num_items)
        if training.cached_negatives:
            self.cache = NegativeCache(training.cached_negatives, width)
        if training.hard_negatives.count:
            self.miner = HardNegativeMiner(
                training.hard_negatives,
                data,
                width,
                trained_only=training.negative_items == "trained",
            )
        if self.miner is not None or (self.cache is not None and training.mask_taken):
            self.training_items = TrainingItems(data)
        parts = {"frequency": self.frequency, "cache": self.cache, "miner": self.miner}
        kept = {name: part for name, part in parts.items() if part is not None}
        self.head = nn.ModuleDict(kept).to(device) if kept else None

    def __call__(self, batch: PairBatch) -> Tensor:
        """Return the loss of `batch`; of several ranks, its share."""
        if self.frequency is not None:
            candidates = batch.item_rows[: batch.num_candidates]
            self.frequency.update(candidates)
            batch = replace(batch, log_inclusion=self.frequency.log_probability(candidates))
        sampled = batch
        if self.miner is not None:
            assert self.training_items is not None
            batch = self.miner.join(self.model, batch, self.training_items.of(batch))
        with autocast(self.training.precision, self.device):
            if self.views is None:
                gather = self.world.gather if self.world.size > 1 else None
                query_BE, candidate_CE = self.model(batch, gather)
                return self._loss(query_BE, candidate_CE, batch, sampled)
            found = self.views.encode(self.model, batch)
            own = self._loss(found.query, found.items[: batch.num_candidates], batch, sampled)
            return own + self.training.self_supervision.weight * found.loss

    def _loss(
        self, query_BE: Tensor, candidate_CE: Tensor, batch: PairBatch, sampled: PairBatch
    ) -> Tensor:
        """Return the loss; `sampled` is the batch as it was before negatives were mined."""
        own_CE = candidate_CE[: sampled.num_candidates]
        if self.cache is not None:
            candidate_CE, batch = self._with_cached(self.cache, candidate_CE, batch)
            own_rows = sampled.item_rows[: sampled.num_candidates]
            self.cache.push(own_CE, own_rows, sampled.log_inclusion)
        return loss_of(
            query_BE, candidate_CE, batch, self.model, self.training, self.num_items, self.world
        )

    def _with_cached(
        self, cache: NegativeCache, candidate_CE: Tensor, batch: PairBatch
    ) -> tuple[Tensor, PairBatch]:
        """Return more candidates, and the batch as their loss reads it.

        The positives of every query are candidates already, so none of them is a cached one.
        """
        cached = cache.beside(batch.item_rows[: batch.num_candidates], batch.log_inclusion)
        not_negative = batch.not_negative
        if self.training.mask_taken:
            assert self.training_items is not None
            spared = columns_of(self.training_items.of(batch), cached.item_rows, self.num_items)
            spared = replace(spared, values=spared.values + batch.num_candidates)
            not_negative = row_by_row(not_negative, spared)
        log_inclusion = torch.cat([cached.own_log_inclusion, cached.log_inclusion])
        batch = replace(batch, not_negative=not_negative, log_inclusion=log_inclusion)
        return torch.cat([candidate_CE, cached.vectors.to(candidate_CE.dtype)]), batch


def _check_ranks(training: TwoTowerTrainingConfig, world: World) -> None:
    if training.hard_negatives.count and world.size > 1:
        raise ConfigError(
            f"training.hard_negatives searches with all queries of a batch, and {world.size} "
            "processes hold a share each: train in one process, or set its count to 0"
        )
