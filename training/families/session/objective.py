"""The loss of a batch of sessions: the next item, and what is asked of it besides."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged, SessionBatch
from recsys.features.dataset.dataset import Dataset
from recsys.losses.next_item import (
    full_softmax,
    generalised_bce,
    sampled_softmax,
    softmax_with_repeats,
)
from recsys.models.attribute_heads import AttributeHeads, classes_of
from recsys.models.session import Encoded, SessionTransformer
from recsys.retrieval.repeats import earlier_items
from recsys.training.config.retrieval import FullSoftmax
from recsys.training.engine.machine import autocast
from recsys.training.engine.ranks import World
from recsys.training.families.session.config import Gbce, SessionTrainingConfig
from recsys.training.families.session.self_supervision import session_regulariser

START_WEIGHT = 0.1
"""How much a session's first item counts, of which only the user is known: requests
without a history need some answer, and are not what the model is for."""


class SessionObjective:
    """A batch to its loss, a scalar; `head` is what only the training needs, if anything."""

    def __init__(
        self,
        model: SessionTransformer,
        data: Dataset,
        training: SessionTrainingConfig,
        world: World,
        device: torch.device,
    ) -> None:
        self.model, self.training, self.world, self.device = model, training, world, device
        self.num_items = data.num_items
        self.of_targets = training.towards == "targets" and data.tables.events.target is not None
        self._last: dict[str, Tensor] = {}
        layout, tasks = data.encoder.layout("items"), training.session.attributes
        found = {t.feature: classes_of(values_of(data.items, layout, t.feature)) for t in tasks}
        self.wanted = {name: wanted.to(device) for name, (wanted, _) in found.items()}
        self.head: nn.Module | None = None
        if tasks:
            self.head = AttributeHeads(
                model.config.dim,
                {name: count for name, (_, count) in found.items()},
                {task.feature: task.weight for task in tasks},
                training.session.learn_task_weights,
            ).to(device)
        self.attributes = self.head
        self.regulariser = session_regulariser(
            training.session.self_supervision,
            model,
            lambda feature: classes_of(values_of(data.items, layout, feature)),
            data.tables.events.user_row,
            world,
        )
        if self.regulariser is not None:
            heads = (self.attributes, self.regulariser.head)
            self.head = nn.ModuleList(one for one in heads if one is not None)

    def __call__(self, batch: SessionBatch) -> Tensor:
        """Return the loss of `batch`; of several ranks, its share."""
        gather = self.world.gather if self.world.size > 1 else None
        with autocast(self.training.precision, self.device):
            encoded = self.model(batch, gather)
            asked = self._with_starts(batch, encoded)
            loss = self._loss(encoded, asked)
            if self.regulariser is not None:
                regularisation = self.regulariser(batch, encoded, self._next_item)
                self._last["self_supervision"] = regularisation.detach()
                loss = loss + regularisation
            return loss

    def parts(self) -> dict[str, float]:
        """Return what the last loss was made of, where it is a sum of several.

        "loss/next_item", "loss/<attribute>" and "loss/self_supervision", the latter with its
        weight; and where the weights of the tasks are learnt "weight/<task>". Of several ranks
        this one's, as if the others had the same.
        """
        if len(self._last) == 1:
            return {}
        found = {f"loss/{n}": float(one) * self.world.size for n, one in self._last.items()}
        heads = self.attributes
        if isinstance(heads, AttributeHeads) and heads.log_variance.requires_grad:
            weights = (-heads.log_variance.detach()).exp().tolist()
            names = ("next_item", *heads.names)
            found |= {f"weight/{n}": one for n, one in zip(names, weights, strict=True)}
        return found

    def _with_starts(self, batch: SessionBatch, encoded: Encoded) -> SessionBatch:
        """Return the batch with the first item of each session asked for, too.

        Where some items alone are targets, it is the first of these.
        """
        offsets = batch.history.items.offsets
        first = offsets[:-1][batch.history.lengths() > 0]
        if self.of_targets:
            found = batch.positive[torch.searchsorted(batch.asks, first)]
        else:
            found = batch.history.items.values[first]
        weight = torch.full((len(first),), START_WEIGHT, device=first.device)
        return replace(
            batch,
            positive=torch.cat([batch.positive, found]),
            weight=torch.cat([batch.weight, weight]),
        )

    def _loss(self, encoded: Encoded, batch: SessionBatch) -> Tensor:
        some = batch.history.lengths() > 0
        states = torch.cat([encoded.states, encoded.starts[some]])
        seen_items = None
        if self.model.repeat is not None:
            seen_items = earlier_items(batch.history.items, batch.asks)
            ends = seen_items.offsets[-1:].expand(int(some.sum()))  # a start has no earlier items
            seen_items = Jagged(seen_items.values, torch.cat([seen_items.offsets, ends]))
        losses_P = self._next_item(states, encoded.items, batch, seen_items)
        (total,) = self.world.sum(float(batch.weight.sum()))

        def mean(losses: Tensor) -> Tensor:
            return (losses * batch.weight).sum() / max(total, 1e-12)

        next_item = mean(losses_P)
        self._last = {"next_item": next_item.detach()}
        if not isinstance(self.attributes, AttributeHeads):
            return next_item
        rows = batch.item_rows[batch.positive]
        wanted = {name: classes.take(rows) for name, classes in self.wanted.items()}
        losses = self.attributes.losses(states.float(), wanted)
        attributes = {name: mean(one) for name, one in losses.items()}
        self._last |= {name: one.detach() for name, one in attributes.items()}
        return self.attributes.joined(next_item, attributes)

    def _next_item(
        self,
        states_PD: Tensor,
        items_UW: Tensor,
        batch: SessionBatch,
        seen_items: Jagged | None = None,
    ) -> Tensor:
        """Return a loss a question; `seen_items`: those of its session, scored higher."""
        loss, model = self.training.loss, self.model
        query_PW, gain_P = model.without_gain(model.queries_of(states_PD) / model.temperature)
        log_inclusion = batch.log_inclusion
        if not self.training.logq_correction:
            log_inclusion = torch.zeros_like(log_inclusion)
        if isinstance(loss, Gbce):
            return generalised_bce(
                query_PW,
                items_UW,
                batch.positive,
                num_candidates=batch.num_candidates,
                num_items=self.num_items,
                calibration=loss.calibration,
            )
        if seen_items is not None and gain_P is not None:
            return softmax_with_repeats(
                query_PW, items_UW, batch.positive, gain_P, seen_items, log_inclusion
            )
        if isinstance(loss, FullSoftmax):
            return full_softmax(query_PW, items_UW, batch.positive)
        return sampled_softmax(query_PW, items_UW, batch.positive, log_inclusion)


def values_of(block: FeatureBlock, layout: FeatureLayout, feature: str) -> Jagged:
    """Return the values of one sparse feature of the rows of `block`."""
    single = [name for name, _ in layout.single]
    if feature in single:
        values = block.single[:, single.index(feature)]
        return Jagged(values.contiguous(), torch.arange(len(values) + 1))
    return block.multi[[name for name, _ in layout.multi].index(feature)]
