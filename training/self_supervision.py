"""Self-supervised regularisation: a loss without labels, beside the task's own.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021,
https://arxiv.org/abs/2007.12865, section 3.3: loss + weight * self-supervised loss. The second is
of items drawn uniformly from the catalogue, not as the log has them, where popular ones would
drown the rare ones that it is for; or, for rankers, of the batch's own rows. Two views of each
(`recsys.augment`) go through the model's own layers and a linear projection, which is trained and
then left behind.

Every random number is drawn from torch's generator, which the loop seeds a step, after those of
the task's own loss. The table takes a step for either loss.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from features.split import TRAIN
from recsys.augment import (
    categories,
    correlated_masks,
    dropped,
    feature_names,
    fully_masked,
    random_mask,
    two_views,
)
from recsys.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.errors import ConfigError
from recsys.losses.contrastive import contrastive_loss, spread_out_loss
from recsys.metrics.information import excess_information
from training.config import ExperimentConfig, SelfSupervision, TrainingConfig
from training.distributed import World
from training.loop import Task
from training.machine import autocast
from training.ranking_rows import RankingRows

WIDTH = 64
"""Of the projection that the losses compare."""
SAMPLE_ROWS = 100_000
"""Rows that say which features are correlated."""


@dataclass(frozen=True)
class Examples:
    """What is seen in two views: items of a catalogue, or the rows of the batch at hand.

    layout: of the features that are masked in turn. sample: rows that say which of them are
    correlated. items: the catalogue, None for the batch's rows. before, after: the features that
    stand around an item's in a row of the model; of an item alone they are masked in both views.
    """

    layout: FeatureLayout
    sample: FeatureBlock
    items: FeatureBlock | None = None
    before: FeatureLayout = FeatureLayout((), (), ())
    after: FeatureLayout = FeatureLayout((), (), ())

    def draw(self, features: FeatureBlock, count: int) -> tuple[FeatureBlock, Tensor | None]:
        """Return `count` items drawn uniformly with their numbers, or the batch's first rows."""
        if self.items is None:
            rows = torch.arange(min(count, len(features)), device=features.single.device)
            return features.take(rows), None
        rows = torch.randint(len(self.items), (count,))
        return self.items.take(rows), rows

    def whole(self, block: FeatureBlock) -> FeatureBlock:
        """Return rows of the model whose examples are those of `block`."""
        if self.items is None:
            return block
        before, after = (fully_masked(one, len(block)) for one in (self.before, self.after))
        return before.beside(block).beside(after)


class SelfSupervisedLoss:
    """weight * the loss of examples drawn anew at each call; `head` is what it has to train."""

    def __init__(
        self,
        training: TrainingConfig,
        represent: Callable[[FeatureBlock], Tensor],
        examples: Examples,
        device: torch.device,
    ) -> None:
        """Draw the head's weights, and see which features are correlated.

        Args:
            training: the settings of the loss, and the precision.
            represent: rows of the model to what its readout sees of them, (N, R).
            examples: what is seen in two views.
            device: the model's.

        Raises:
            ConfigError: there are not two features, of which one could be masked.
        """
        self.settings, self.precision = training.self_supervision, training.precision
        self.represent, self.examples, self.device = represent, examples, device
        names = feature_names(examples.layout)
        if self.settings.kind == "contrastive" and len(names) < 2:
            raise ConfigError(
                f"training.self_supervision: each view hides some of the {self.settings.views}'s "
                f"features and shows others, and there is {' and '.join(names) or 'none'} alone: "
                "declare more features, or choose other views or kind: spread_out"
            )
        self.num_features = len(names)
        self.masks = None
        if self.settings.kind == "contrastive" and self.settings.masking == "correlated":
            columns = categories(examples.sample, examples.layout)
            self.masks = correlated_masks(excess_information(columns))
        with torch.no_grad():
            blank = examples.whole(fully_masked(examples.layout, 1))
            width = represent(blank.to(device)).shape[1]
        self.head = nn.Linear(width, WIDTH, bias=False).to(device)

    def __call__(self, features: FeatureBlock) -> Tensor:
        """Return the weighted loss, a scalar; `features` are those of the batch."""
        settings = self.settings
        block, ids_N = self.examples.draw(features, settings.batch_size)
        if settings.kind == "contrastive":
            views = two_views(block, self._mask(), self.examples.layout)
            block = dropped(views, settings.dropout)
        with autocast(self.precision, self.device):
            projected = self.head(self.represent(self.examples.whole(block).to(self.device)))
        ids_N = None if ids_N is None else ids_N.to(self.device)
        if settings.kind == "spread_out":
            return settings.weight * spread_out_loss(projected.float(), ids_N)
        first_NE, second_NE = projected.float().chunk(2)
        return settings.weight * contrastive_loss(first_NE, second_NE, settings.temperature, ids_N)

    def _mask(self) -> Tensor:
        if self.masks is None:
            return random_mask(self.num_features)
        return self.masks[torch.randint(self.num_features, ())]


def self_supervised(
    task: Task[RankingBatch], config: ExperimentConfig, rows: RankingRows, world: World
) -> Task[RankingBatch]:
    """Return the task of a ranker with the self-supervised loss of its configuration added.

    A model without a representation, trained beside another for comparison, goes without.

    Raises:
        ConfigError: several ranks train together, or there are not two features to mask.
    """
    settings = config.training.self_supervision
    model: Any = task.trained.model
    if settings.kind == "none" or not settings.weight or not hasattr(model, "represent"):
        return task
    if world.size > 1:
        raise ConfigError(
            f"training.self_supervision.kind: {settings.kind} compares all rows of a batch, and "
            f"{world.size} processes hold a share each: train in one process, or set it to none"
        )
    examples = _examples(settings, rows)
    auxiliary = SelfSupervisedLoss(config.training, model.represent, examples, world.device)
    task.trained.optimizer.add_param_group(
        {"params": [auxiliary.head.weight], "weight_decay": config.training.weight_decay}
    )
    return replace(
        task,
        trained=replace(task.trained, head=auxiliary.head),
        loss=lambda batch: task.loss(batch) + auxiliary(batch.features),
    )


def _examples(settings: SelfSupervision, rows: RankingRows) -> Examples:
    if settings.views == "item":
        assert rows.items is not None, "a streamed log has no items: refused by the configuration"
        items, encoder, layout = rows.items, rows.encoder, rows.layout
        few = torch.arange(0, len(items), -(-len(items) // SAMPLE_ROWS))
        # Behind the columns of all tables stands what is derived from them.
        columns = encoder.columns_layout()
        derived = FeatureLayout(
            layout.single[len(columns.single) :],
            layout.multi[len(columns.multi) :],
            layout.dense[len(columns.dense) :],
        )
        return Examples(
            encoder.layout("items"), items.take(few), items, encoder.query_layout(), derived
        )
    batch = next(iter(rows.loader.ordered(TRAIN, SAMPLE_ROWS)))
    return Examples(rows.layout, batch.features)
