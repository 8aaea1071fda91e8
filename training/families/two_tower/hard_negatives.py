"""Hard negatives of the two-tower: items the model itself would show, without an interaction.

Every so many steps all items are encoded, and each batch's queries are searched in that snapshot,
as approximate nearest-neighbour negatives are in Xiong et al., "Approximate Nearest Neighbor
Negative Contrastive Learning for Dense Text Retrieval", ICLR 2021,
https://arxiv.org/abs/2007.00808, section 4. What is found joins the candidates of all queries
with a gradient, looked up in the batch's one call of the table.

Sampling did not draw these items, so no probability corrects them: they count once, as they would
in the softmax over the whole catalogue, also where sampling had drawn one too. Given which items
were mined, the corrected sum over the negatives stays an unbiased estimate: the mined ones are
all there, and the others are as likely in the batch as before.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from recsys.data.batch import Jagged, PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.interests import search
from recsys.sampling.candidates import excluded_also, with_candidates
from recsys.training.families.two_tower.config import HardNegatives

MOST = 64
"""Items that join a batch, at most this times `count`: those that most of its queries meet."""


class TrainingItems:
    """All training items of the user of each query of a batch."""

    def __init__(self, data: Dataset) -> None:
        self.histories = data.histories((TRAIN,))
        self.user_row = data.tables.events.user_row

    def of(self, batch: PairBatch) -> Jagged:
        """Return B rows of item rows, on the batch's device."""
        asks, examples = batch.asks.cpu(), batch.examples.cpu()
        first = torch.searchsorted(asks, torch.arange(len(batch.query)))
        users = self.user_row[examples[first].numpy()]
        return self.histories.last(users).to(batch.asks.device)


class HardNegativeMiner(nn.Module):
    """Holds the snapshot, which a checkpoint keeps: a resumed run searches the same one."""

    def __init__(
        self, settings: HardNegatives, data: Dataset, width: int, *, trained_only: bool
    ) -> None:
        """Allocate the snapshot, (num_items, width); `trained_only`: as of the loader."""
        super().__init__()
        self.settings, self.data = settings, data
        may_be_mined = torch.from_numpy((data.train_counts > 0) | (not trained_only))
        self.register_buffer("may_be_mined", may_be_mined, persistent=False)
        self.register_buffer("snapshot", torch.zeros(data.num_items, width))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def join(self, model: TwoTower, batch: PairBatch, own_items: Jagged) -> PairBatch:
        """Return the batch with its hard negatives; call once a step, outside of autocast.

        Autocast keeps the weights that it has cast, and would keep those cast here without a
        gradient.

        Args:
            model: the current one.
            batch: whole.
            own_items: B rows of item rows that are not negatives of a query.
        """
        step, snapshot = self.get_buffer("step"), self.get_buffer("snapshot")
        device = snapshot.device
        if int(step) % self.settings.every == 0:
            snapshot.copy_(catalogue_vectors(model, self.data.items.to(device)))
        step += 1
        mined = self._mined(model, batch, own_items)
        own = batch.num_candidates
        grown = with_candidates(
            batch, mined, lambda rows: self.data.items.take(rows.cpu()).to(device)
        )
        is_mined = torch.isin(grown.item_rows[: grown.num_candidates], mined)
        log_inclusion = grown.log_inclusion.masked_fill(is_mined, 0.0)
        grown = replace(grown, log_inclusion=log_inclusion)
        return excluded_also(grown, own_items, own, self.data.num_items)

    def _mined(self, model: TwoTower, batch: PairBatch, own_items: Jagged) -> Tensor:
        """Return the item rows that the queries find, those of most queries first, (K,) int64."""
        snapshot, count = self.get_buffer("snapshot"), self.settings.count
        events = Jagged(batch.item_rows[batch.history.values], batch.history.offsets)
        queries = query_vectors(model, batch.query, snapshot, events)
        index = ExactVectors(snapshot.cpu())
        top = search(index, queries.cpu(), count, own_items.to("cpu"))[1].to(snapshot.device)
        rows, times = top[top >= 0].unique(return_counts=True)
        allowed = self.get_buffer("may_be_mined")[rows]
        rows, times = rows[allowed], times[allowed]
        order = times.argsort(descending=True, stable=True)
        return rows[order[: MOST * count]]
