"""Self-supervision of the two-tower: views of items, of users, or of both, next to the pairs.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021,
https://arxiv.org/abs/2007.12865, section 3.3 and figure 3: both views of an item go through the
candidate tower itself, and the loss compares its outputs by their cosine, without a projection:
they are what the index holds. Of `views: query` the same is done with users and the query tower;
their context is masked and their history empty, so that only their own features remain.

The rows of the views follow those of the batch, so one call of the table reads them all, and
it takes one step a batch. They are drawn before the model's dropout.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batch import Jagged, PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.layers.geometry import points_of
from recsys.models.two_tower import TwoTower
from recsys.training.engine.ranks import World
from recsys.training.families.two_tower.config import TowerSelfSupervision
from recsys.training.families.two_tower.views_checked import check_smoothing
from recsys.training.families.views import Examples, Views


@dataclass(frozen=True)
class Encoded:
    """query (B, E) and items (U, E): vectors of a batch; loss: of its views, unweighted."""

    query: Tensor
    items: Tensor
    loss: Tensor


class TowerViews:
    """Draws views and encodes them with a batch. Either side may be None: it has no views."""

    def __init__(self, items: Views | None, query: Views | None) -> None:
        self.items, self.query = items, query

    def encode(self, model: TwoTower, batch: PairBatch) -> Encoded:
        """Return the vectors of `batch` and the loss of views drawn for it."""
        num_items, num_queries, device = len(batch.items), len(batch.query), batch.asks.device
        losses: list[Callable[[Tensor, Tensor], Tensor]] = []
        if self.items is not None:
            views, of_items = self.items, self.items.draw(batch.items)
            below = of_items[0].to(device)
            batch = replace(batch, items=batch.items.above(below))
            losses.append(lambda _, items: views.loss(items, of_items[1]))
        if self.query is not None:
            asked, of_users = self.query, self.query.draw(batch.query)
            below = of_users[0].to(device)
            batch = replace(
                batch,
                query=batch.query.above(below),
                history=batch.history.above(_no_history(len(below), device)),
            )
            losses.append(lambda query, _: asked.loss(query, of_users[1]))
        query_BE, items_UE = model(replace(batch, num_candidates=len(batch.items)))
        geometry = model.config.geometry
        # Of several interests each is compared with the same one of the other view.
        below_queries = points_of(query_BE[num_queries:], geometry).flatten(1)
        below_items = points_of(items_UE[num_items:], geometry)
        loss = torch.stack([one(below_queries, below_items) for one in losses]).sum()
        return Encoded(query_BE[:num_queries], items_UE[:num_items], loss)


def tower_views(
    settings: TowerSelfSupervision, data: Dataset, world: World, *, smoothed: bool = False
) -> TowerViews | None:
    """Return the views that `settings` ask for, of a model with or without item smoothing.

    None: no loss.

    Raises:
        ConfigError: several ranks train together, there are not two features to mask, or items
            are smoothed over the catalogue, of which a view is no part.
    """
    if settings.kind == "none" or not settings.weight:
        return None
    if world.size > 1:
        raise ConfigError(
            f"training.self_supervision.kind: {settings.kind} compares all views of a batch, and "
            f"{world.size} processes hold a share each: train in one process, or set it to none"
        )
    check_smoothing(settings, smoothed=smoothed)
    encoder = data.encoder
    items = query = None
    if settings.views in ("item", "both"):
        items = Views(settings, Examples.of_catalogue(data.items, encoder.layout("items")))
    if settings.views in ("query", "both"):
        context = encoder.layout("interactions")
        layout = encoder.layout("users")
        users = Examples.of_catalogue(data.users, layout, after=context, name="user")
        query = Views(settings, users)
    return TowerViews(items, query)


def _no_history(num_rows: int, device: torch.device) -> Jagged:
    none = torch.zeros(num_rows + 1, dtype=torch.int64, device=device)
    return Jagged(none[:0], none)
