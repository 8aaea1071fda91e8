"""Self-supervised regularisation: a loss without labels, added to the task's own.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021,
https://arxiv.org/abs/2007.12865, section 3.3: loss + weight * self-supervised loss. The second is
of items drawn uniformly from the catalogue, not as the log has them, where popular ones would
drown the rare ones that it is for; or, for rankers, of the batch's own rows. Two views of each
(`recsys.sampling.augment`) go through the model's own layers and a linear projection, which is
trained and then left behind.

Every random number is drawn from torch's generator, which the loop seeds a step, after those of
the task's own loss. The table takes a step for either loss.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.features.dataset.split import TRAIN
from recsys.layers.norm import statistics_kept
from recsys.sampling.augment import fully_masked
from recsys.training.engine.loop import Task
from recsys.training.engine.machine import autocast
from recsys.training.engine.ranks import World
from recsys.training.families.ranker.config import (
    RankerExperiment,
    RankerTrainingConfig,
    RowSelfSupervision,
)
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.views import SAMPLE_ROWS, Examples, Views

WIDTH = 64
"""Of the projection that the losses compare."""


class SelfSupervisedLoss:
    """weight * the loss of examples drawn at each call; `head` is what it has to train."""

    def __init__(
        self,
        training: RankerTrainingConfig,
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
        self.represent, self.device = represent, device
        self.views = Views(self.settings, examples)
        with torch.no_grad(), statistics_kept():
            blank = examples.whole(fully_masked(examples.layout, 1))
            width = represent(blank.to(device)).shape[1]
        self.head = nn.Linear(width, WIDTH, bias=False).to(device)

    def __call__(self, features: FeatureBlock) -> Tensor:
        """Return the weighted loss, a scalar; `features` are those of the batch."""
        block, ids_N = self.views.draw(features)
        # Masked rows are no sample of the data.
        with autocast(self.precision, self.device), statistics_kept():
            projected = self.head(self.represent(block.to(self.device))).float()
        return self.settings.weight * self.views.loss(projected, ids_N)


def self_supervised(
    task: Task[RankingBatch], config: RankerExperiment, rows: RankingRows, world: World
) -> Task[RankingBatch]:
    """Return the task of a ranker with the self-supervised loss of its configuration added.

    A model without a representation, trained for comparison only, has none.

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


def _examples(settings: RowSelfSupervision, rows: RankingRows) -> Examples:
    if settings.views == "item":
        assert rows.items is not None, "a streamed log has no items: refused by the configuration"
        items, encoder, layout = rows.items, rows.encoder, rows.layout
        # Derived columns follow those of all tables.
        columns = encoder.columns_layout()
        derived = FeatureLayout(
            layout.single[len(columns.single) :],
            layout.multi[len(columns.multi) :],
            layout.dense[len(columns.dense) :],
        )
        return Examples.of_catalogue(
            items, encoder.layout("items"), before=encoder.query_layout(), after=derived
        )
    batch = next(iter(rows.loader.ordered(TRAIN, SAMPLE_ROWS)))
    return Examples(rows.layout, batch.features, name="row")
