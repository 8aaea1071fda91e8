"""Self-supervised regularisation of a model of sessions, added to the next item's loss.

Masked items: Sun et al., "BERT4Rec", CIKM 2019, https://arxiv.org/abs/1904.06690, section 3.6.
Masked attributes with them: Zhou et al., "S3-Rec", CIKM 2020, https://arxiv.org/abs/2008.07873,
section 4.2, equations 5 to 8. Both ask the states of hidden steps, seen from both sides, once a
batch. Contrast of two views: Xie et al., "Contrastive Learning for Sequential Recommendation",
ICDE 2022, https://arxiv.org/abs/2010.14395, section III-B. All in the training of the next item,
where S3-Rec comes before it, and with the transformer that serves. Items are asked for by the
loss of the next item, attributes by a softmax.

A step of the transformer costs nothing of the table: the vectors are those of the batch itself.
Every random number is drawn from torch's generator, which the loop seeds a step, after those of
the task's own loss. Sessions of one step, of which no view is another, take no part.

Shape letters: B sessions of the batch, N of them with two steps or more, V steps of views,
M hidden steps that ask, D width.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.data.batch import Jagged, SessionBatch
from recsys.losses.contrastive import contrastive_loss
from recsys.models.attribute_heads import AttributeHead
from recsys.models.session import Encoded, SessionTransformer
from recsys.sampling.session_views import View, augmented, hidden
from recsys.training.engine.ranks import World
from recsys.training.families.session.self_supervision_config import SessionSelfSupervision

ItemLoss = Callable[[Tensor, Tensor, SessionBatch], Tensor]
"""States (M, D), vectors of items and a batch with M positives to losses (M,)."""


class SelfSupervisionHead(nn.Module):
    """What only the training needs: the vector of a hidden step, and the queries of its state.

    mask (D,); of_items: from a state that has seen both sides to one that asks for an item, at
    first the same (W of S3-Rec, equation 5); of_attributes: the classes of each feature.
    """

    def __init__(self, dim: int, items: bool, num_classes: Mapping[str, int]) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.of_items = nn.Linear(dim, dim, bias=False) if items else None
        if self.of_items is not None:
            nn.init.eye_(self.of_items.weight)
        self.of_attributes = nn.ModuleList(AttributeHead(dim, k) for k in num_classes.values())


class SessionRegulariser:
    """The weighted losses of a batch; `head` is what they have to train."""

    def __init__(
        self,
        settings: SessionSelfSupervision,
        model: SessionTransformer,
        classes: Callable[[str], tuple[Jagged, int]],
        user_row: NDArray[np.integer[Any]],
        device: torch.device,
    ) -> None:
        """Draw the head's weights.

        Args:
            settings: which losses, and their weights.
            model: what is regularised.
            classes: an item feature to the classes of each item of the catalogue, and to how many
                there are (`recsys.models.attribute_heads.classes_of`).
            user_row: (E,) user of each event of the log.
            device: the model's.
        """
        self.settings, self.model, self.user_row = settings, model, torch.from_numpy(user_row)
        asked = settings.masked_attributes
        found = {name: classes(name) for name in (asked.features if asked.weight else ())}
        self.wanted = {name: wanted.to(device) for name, (wanted, _) in found.items()}
        counts = {name: count for name, (_, count) in found.items()}
        items = settings.masked_items.weight > 0
        self.head = SelfSupervisionHead(model.config.dim, items, counts).to(device)

    def __call__(self, batch: SessionBatch, encoded: Encoded, item_loss: ItemLoss) -> Tensor:
        """Return the weighted sum of the losses, each a mean, a scalar; 0 where nothing asks.

        encoded: what the model made of `batch`.
        """
        settings, several = self.settings, (batch.history.lengths() > 1).nonzero().flatten()
        total = encoded.items.new_zeros(())
        if not len(several):
            return total
        every = torch.arange(len(batch.history.gap), device=several.device)
        steps = Jagged(every, batch.history.items.offsets).take(several)
        if settings.masked_items.weight or settings.masked_attributes.weight:
            total = total + self._masked(batch, encoded, steps, encoded.users[several], item_loss)
        if settings.contrastive.weight:
            total = total + self._contrast(batch, encoded, steps, several)
        return total

    def _masked(
        self,
        batch: SessionBatch,
        encoded: Encoded,
        steps: Jagged,
        users_NX: Tensor,
        item_loss: ItemLoss,
    ) -> Tensor:
        """Ask for items and attributes of hidden steps, those of the larger share."""
        items, attributes = self.settings.masked_items, self.settings.masked_attributes
        luck_V = torch.rand(len(steps.values)).to(steps.values.device)
        shares = [one.share for one in (items, attributes) if one.weight]
        view = View(steps, _chosen(steps, max(shares), luck_V))
        states_VD = self._states(view, batch, encoded, users_NX, causal=False)
        position_V = batch.history.items.values[steps.values]
        total = states_VD.new_zeros(())
        if self.head.of_items is not None:
            asks_V = _chosen(steps, items.share, luck_V)
            asked = replace(batch, positive=position_V[asks_V])
            losses_M = item_loss(self.head.of_items(states_VD[asks_V]), encoded.items, asked)
            total = total + items.weight * losses_M.mean()
        if attributes.weight:
            asks_V = _chosen(steps, attributes.share, luck_V)
            rows_M, states_MD = batch.item_rows[position_V[asks_V]], states_VD[asks_V].float()
            for wanted, head in zip(self.wanted.values(), self.head.of_attributes, strict=True):
                assert isinstance(head, AttributeHead)
                losses_M = head.loss(states_MD, wanted.take(rows_M))
                total = total + attributes.weight * losses_M.mean()
        return total

    def _contrast(
        self, batch: SessionBatch, encoded: Encoded, steps: Jagged, several: Tensor
    ) -> Tensor:
        """Compare the last states of two views of each session, whose states hold a question.

        Sessions of one user are no negatives of each other.
        """
        settings = self.settings.contrastive
        twice = steps.take(torch.arange(len(steps), device=several.device).repeat(2))
        view = augmented(twice, crop=settings.crop, mask=settings.mask, reorder=settings.reorder)
        states_VD = self._states(view, batch, encoded, None, causal=True)
        first_ND, second_ND = states_VD[view.steps.offsets[1:] - 1].float().chunk(2)
        ids_N = self._users(batch)[several]
        return settings.weight * contrastive_loss(first_ND, second_ND, settings.temperature, ids_N)

    def _states(
        self,
        view: View,
        batch: SessionBatch,
        encoded: Encoded,
        users_NX: Tensor | None,
        *,
        causal: bool,
    ) -> Tensor:
        return self.model.encode_view(
            encoded.items,
            encoded.events[view.steps.values],
            view.of(batch.history),
            (view.hidden, self.head.mask),
            users_BX=users_NX,
            causal=causal,
        )

    def _users(self, batch: SessionBatch) -> Tensor:
        """Return the user row of each session, (B,): of the event that its last step asks for."""
        last_B = torch.searchsorted(batch.asks, batch.history.items.offsets[1:] - 1)
        users_B: Tensor = self.user_row[batch.examples[last_B].cpu()].to(last_B.device)
        return users_B


def session_regulariser(
    settings: SessionSelfSupervision,
    model: SessionTransformer,
    classes: Callable[[str], tuple[Jagged, int]],
    user_row: NDArray[np.integer[Any]],
    world: World,
) -> SessionRegulariser | None:
    """Return what `settings` ask for, None: nothing; see `SessionRegulariser`.

    Raises:
        ConfigError: several ranks train together.
    """
    if not settings.is_on:
        return None
    if world.size > 1:
        raise ConfigError(
            "training.session.self_supervision looks at all sessions and items of a batch, and "
            f"{world.size} processes hold a share each: train in one process, or set its weights "
            "to 0"
        )
    return SessionRegulariser(settings, model, classes, user_row, world.device)


def _chosen(steps: Jagged, share: float, luck_V: Tensor) -> Tensor:
    share_N = torch.full((len(steps),), share, device=luck_V.device)
    return hidden(steps, share_N, luck_V)
