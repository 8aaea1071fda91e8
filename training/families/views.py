"""Two views of things drawn uniformly, or of a batch's rows, as self-supervision compares them.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021,
https://arxiv.org/abs/2007.12865, section 3.2; the masks are those of `recsys.sampling.augment`.
Every random number is drawn from torch's generator, which the loop seeds a step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.losses.contrastive import contrastive_loss, spread_out_loss
from recsys.metrics.information import excess_information
from recsys.sampling.augment import (
    categories,
    correlated_masks,
    dropped,
    feature_dropout,
    feature_names,
    fully_masked,
    random_mask,
    two_views,
)
from recsys.training.config.self_supervision import SelfSupervision
from recsys.training.families.views_checked import check_features

SAMPLE_ROWS = 100_000
"""Rows that say which features are correlated."""
NO_FEATURES = FeatureLayout((), (), ())


@dataclass(frozen=True)
class Examples:
    """What is seen in two views: items of a catalogue, or the rows of the current batch.

    layout: of the features that are masked in turn. sample: rows that say which of them are
    correlated. items: the catalogue, None for the batch's rows. before, after: the features that
    come before and after an item's in a row of the model; of an item alone they are masked in both
    views. name: what one example is called in a message.
    """

    layout: FeatureLayout
    sample: FeatureBlock
    items: FeatureBlock | None = None
    before: FeatureLayout = NO_FEATURES
    after: FeatureLayout = NO_FEATURES
    name: str = "item"

    @classmethod
    def of_catalogue(
        cls,
        items: FeatureBlock,
        layout: FeatureLayout,
        *,
        before: FeatureLayout = NO_FEATURES,
        after: FeatureLayout = NO_FEATURES,
        name: str = "item",
    ) -> "Examples":
        """Return what is drawn uniformly from the rows of `items`."""
        few = torch.arange(0, len(items), -(-len(items) // SAMPLE_ROWS))
        return cls(layout, items.take(few), items, before, after, name)

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


class Views:
    """Makes the views of `examples` that `settings` ask for; sees which features correlate."""

    def __init__(self, settings: SelfSupervision, examples: Examples) -> None:
        """Find the masks of correlated features.

        Raises:
            ConfigError: there are not two features, of which one could be masked.
        """
        self.settings, self.examples = settings, examples
        names = feature_names(examples.layout)
        check_features(settings, examples.name, names)
        self.num_features = len(names)
        self.masks = None
        if settings.kind == "contrastive" and settings.masking == "correlated":
            columns = categories(examples.sample, examples.layout)
            self.masks = correlated_masks(excess_information(columns))

    def draw(self, features: FeatureBlock) -> tuple[FeatureBlock, Tensor | None]:
        """Return rows of the model and the numbers of what was drawn, (N,) int64.

        `contrastive`: 2N rows, first views above second ones; `spread_out`: N rows as they are.
        `features` are those of the batch; the numbers are None where its rows are the examples.
        """
        settings, layout = self.settings, self.examples.layout
        block, ids_N = self.examples.draw(features, settings.batch_size)
        if settings.kind == "contrastive" and settings.masking == "none":
            block = feature_dropout(block.above(block), settings.dropout, layout)
        elif settings.kind == "contrastive":
            block = dropped(two_views(block, self._mask(), layout), settings.dropout)
        return self.examples.whole(block), ids_N

    def loss(self, vectors: Tensor, ids_N: Tensor | None) -> Tensor:
        """Return the loss of what the model made of the rows drawn, a scalar, not yet weighted.

        Args:
            vectors: (2N, E) or (N, E) float32, as `draw` gave the rows.
            ids_N: (N,) int64, rows of one number are the same thing.
        """
        if ids_N is not None:
            ids_N = ids_N.to(vectors.device)
        if self.settings.kind == "spread_out":
            return spread_out_loss(vectors, ids_N)
        first_NE, second_NE = vectors.chunk(2)
        return contrastive_loss(first_NE, second_NE, self.settings.temperature, ids_N)

    def _mask(self) -> Tensor:
        if self.masks is None:
            return random_mask(self.num_features)
        return self.masks[torch.randint(self.num_features, ())]
