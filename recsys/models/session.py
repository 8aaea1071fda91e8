"""A transformer over sessions whose items are functions of their metadata.

Shalaby et al., "M2TRec: Metadata-aware Multi-task Transformer for Large-scale and Cold-start free
Session-based Recommendations", RecSys 2022, https://arxiv.org/abs/2209.11824, section 3: an item
is what its fields say, so the weights do not grow with the catalogue and an item of today has a
vector today. The fields come from the unified embedding; an id is a field like any other, and may
be left out.

The transformer is causal, trained on what follows every step at once, as in Kang and McAuley,
"Self-Attentive Sequential Recommendation", ICDM 2018, section III. Steps and candidates share the
item vectors, so at serving time a session costs no lookup for its items, and a query is one
vector that any index of the items answers.

Shape letters: B sessions, T steps in all, P steps that ask, U distinct items, C <= U candidates,
D width of a point, W of a vector (`recsys.layers.geometry`), V and X widths in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import FeatureBlock, History, SessionBatch
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.dropout import ByteDropout
from recsys.layers.geometry import (
    candidate_vectors,
    points_of,
    query_vectors_of,
    rotated,
    tower_width,
)
from recsys.layers.mlp import mlp
from recsys.layers.readout import ItemReadout
from recsys.layers.transformer import Cache, Packing, Transformer
from recsys.models.session_config import SessionTransformerConfig

ITEMS, USERS, EVENTS = 0, 1, 2
"""The sides of the embedding's plan, in order."""
NUM_GAPS = 33
"""Classes of the time since the step before: unknown, then by powers of two seconds."""


@dataclass(frozen=True)
class Encoded:
    """What a batch of sessions comes to.

    states (P, D): of the steps that ask; items (U, W): vectors; starts (B, D): of sessions of
    which only the user is known yet; users (B, X), events (T, X): what the embedding gave
    of them.
    """

    states: Tensor
    starts: Tensor
    items: Tensor
    users: Tensor
    events: Tensor


class SessionTransformer(nn.Module):
    """Items from their features, queries from sessions; knows of no loss, optimizer or data."""

    def __init__(self, config: SessionTransformerConfig, embedding: UnifiedEmbedding) -> None:
        super().__init__()
        self.frame: Tensor | None
        dim = config.dim
        self.config, self.embedding = config, embedding
        width = tower_width(dim, config.geometry)
        plan = embedding.plan
        self.candidate = mlp(plan.width(ITEMS), config.hidden, width, dropout=config.dropout)
        learned = config.transformer.positions == "learned"
        self.position = nn.Embedding(config.history_length, dim) if learned else None
        self.gap = nn.Embedding(NUM_GAPS, dim) if config.time_gaps else None
        self.user = _linear(plan.width(USERS), dim)
        self.event = _linear(plan.width(EVENTS), dim)
        self.start = nn.Parameter(torch.zeros(dim))
        self.norm = nn.LayerNorm(dim)
        self.dropout = ByteDropout(config.dropout)
        self.transformer = Transformer(config.transformer, dim)
        items = config.readout == "items"
        self.readout = ItemReadout(dim, config.dropout) if items else None
        self.repeat = nn.Linear(dim, 1) if config.repeats is True else None
        self.register_buffer("frame", None)  # (D, D) of a model that was rotated
        log_temperature = torch.tensor(math.log(config.temperature))
        self.log_temperature = nn.Parameter(log_temperature, config.learn_temperature)
        self._start_small()

    @torch.no_grad()
    def _start_small(self) -> None:
        """At first a step is its item; what else is known of it comes in as it proves useful."""
        for table in (self.position, self.gap):
            if table is not None:
                nn.init.normal_(table.weight, std=0.1 / math.sqrt(self.config.dim))
        nn.init.normal_(self.start, std=1 / math.sqrt(self.config.dim))
        for layer in (self.user, self.event):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.1 / math.sqrt(layer.in_features))
        last = self.candidate[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.bias)
        if self.repeat is not None:
            nn.init.zeros_(self.repeat.weight)
            nn.init.zeros_(self.repeat.bias)

    @property
    def temperature(self) -> Tensor:
        """What products of vectors are divided by, a positive scalar."""
        return self.log_temperature.exp()

    def forward(
        self, batch: SessionBatch, gather: Callable[[Tensor, int], Tensor] | None = None
    ) -> Encoded:
        """Return the states of all steps that ask, and the vectors of all items.

        `gather` makes the vectors of all U items from those of the batch's own, where items are
        shared out among processes: (n, W) and U to (U, W).
        """
        history = batch.history
        items_UV, users_BX, events_TX = self.embedding([batch.items, batch.users, history.features])
        items_UW = self.placed(self.candidate(items_UV).float())
        if gather is not None:
            items_UW = gather(items_UW, len(batch.item_rows))
        every = torch.arange(len(history), device=items_UW.device)
        states = self._states(users_BX, events_TX, items_UW, history, every)
        steps, starts = states.split([len(history.gap), len(history)])
        return Encoded(steps[batch.asks], starts, items_UW, users_BX, events_TX)

    def queries_of(self, states_ND: Tensor) -> Tensor:
        """Return the vectors (N, W) that states ask an index with.

        With `repeats` (N, W + 1): the last number is what the score of an item gains by being in
        the session (`recsys.retrieval.repeats`).
        """
        query_NW = query_vectors_of(rotated(states_ND.float(), self.frame), self.config.geometry)
        if self.repeat is None:
            return query_NW
        gain_N1 = self.repeat(states_ND).float() * self.temperature
        return torch.cat([query_NW, gain_N1], dim=1)

    def without_gain(self, queries_NX: Tensor) -> tuple[Tensor, Tensor | None]:
        """Part what `queries_of` gives: vectors (N, W), and the gains (N,) of items of the session.

        None: they gain nothing; -inf: they are in no list.
        """
        if self.config.repeats == "never":
            return queries_NX, queries_NX.new_full((len(queries_NX),), -torch.inf)
        if self.repeat is None:
            return queries_NX, None
        return queries_NX[:, :-1], queries_NX[:, -1]

    def encode_items(self, items: FeatureBlock) -> Tensor:
        """Return vectors (N, W) of items by themselves: what a new item is served with."""
        return self.placed(self.raw_items(items))

    def raw_items(self, items: FeatureBlock) -> Tensor:
        """Return what comes of the features of items, (N, R) float32, before it is placed."""
        return self.candidate(self.embedding.side(ITEMS, items)).float()

    def placed(self, raw_NR: Tensor) -> Tensor:
        """Return the vectors (N, W) of items of which `raw_items` gave (N, R)."""
        return candidate_vectors(rotated(raw_NR, self.frame), self.config.geometry)

    def placed_catalogue(self, raw_NR: Tensor, *, chunk_rows: int) -> Tensor:
        """Return the vectors (N, W) of the whole catalogue: those of its items by themselves."""
        return self.placed(raw_NR)

    def item_space(self) -> tuple[bytes, list[Tensor]]:
        """Return what else than the tower and the table decides on an item's vector."""
        return b"", [] if self.frame is None else [self.frame]

    def rotate(self, rotation_DD: Tensor) -> None:
        """Put x R in place of every point x of items and queries; products stay what they are.

        rotation_DD: orthogonal. The transformer sees the items of a session as it learnt to.
        """
        before = torch.eye(self.config.dim) if self.frame is None else self.frame
        self.frame = (before.double() @ rotation_DD.double()).to(self.start)

    def encode_queries(self, users: FeatureBlock, item_vectors: Tensor, history: History) -> Tensor:
        """Return vectors (B, W) of what comes after each history, which may be empty.

        As `queries_of` gives them.

        `history.items` points into `item_vectors` (N, W); rows no longer than history_length.
        """
        users_BX = self.embedding.side(USERS, users)
        return self.queries_of(self.last_states(users_BX, item_vectors, history))

    def last_states(self, users_BX: Tensor, item_vectors: Tensor, history: History) -> Tensor:
        """Return the states (B, D) after each history, of a start where it is empty.

        As `encode_queries`, the users' features embedded already.
        """
        events_TX = self.embedding.side(EVENTS, history.features)
        lengths = history.lengths()
        empty = (lengths == 0).nonzero().flatten()
        states = self._states(users_BX, events_TX, item_vectors, history, empty)
        last = history.items.offsets[1:] - 1
        last[empty] = len(history.gap) + torch.arange(len(empty), device=last.device)
        return states[last]

    def extend(
        self, users_1X: Tensor, item_vectors: Tensor, history: History, cache: Cache
    ) -> tuple[Tensor, Cache]:
        """Return states (T, D) of the next steps of one session, and its cache with them.

        users_1X: embedded features of the session's user. history: one row, the steps that come
        after those of `cache` (`Transformer.extend`), together no more than history_length.
        """
        none = history.items.offsets[:0]
        events_TX = users_1X[:0]
        if self.event is not None:
            events_TX = self.embedding.side(EVENTS, history.features)
        points_TD, x_TD = self._steps(users_1X, events_TX, item_vectors, history, none, None)
        before = len(cache[0])
        position_T = torch.arange(before, before + len(x_TD), device=x_TD.device)
        x_TD = self._placed_steps(x_TD, position_T)
        if self.readout is None:
            return self.transformer.extend(x_TD, cache)
        states_TD, longer = self.transformer.extend(x_TD, cache[:-1])
        states_TD, known = self.readout.extend(states_TD, points_TD, cache[-1])
        return states_TD, (*longer, known)

    def no_steps(self) -> Cache:
        """Return the cache of a session without a step, as `extend` takes it."""
        cache = self.transformer.no_steps()
        if self.readout is None:
            return cache
        return (*cache, self.start.new_zeros(0, 2, 1, self.config.dim))

    def encode_view(
        self,
        items_UW: Tensor,
        events_TX: Tensor,
        history: History,
        hidden: tuple[Tensor, Tensor],
        *,
        users_BX: Tensor | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Return the states (T, D) of the steps of `history`, of some of which nothing is seen.

        Args:
            items_UW: vectors of the items that `history.items` points to.
            events_TX: what the embedding gave of `history.features`, which are not read again.
            history: B sessions, T steps.
            hidden: (T,) bool, the steps of which nothing is seen; and the vector (D,) that replaces
                their item, event and gap.
            users_BX: what the embedding gave of the users; None: the user is not known.
            causal: a step sees those before it alone, else all of its session.
        """
        no_queries = history.items.offsets[:0]
        return self._states(users_BX, events_TX, items_UW, history, no_queries, hidden, causal)

    def _states(
        self,
        users_BX: Tensor | None,
        events_TX: Tensor,
        items_UW: Tensor,
        history: History,
        starts: Tensor,
        hidden: tuple[Tensor, Tensor] | None = None,
        causal: bool = True,
    ) -> Tensor:
        """Return the states of all T steps, then of a start step for each session of `starts`."""
        offsets, num_steps = history.items.offsets, len(history.gap)
        ends = torch.arange(1, len(starts) + 1, device=offsets.device)
        packing = Packing.of(torch.cat([offsets, num_steps + ends]))
        points_TD, x_TD = self._steps(users_BX, events_TX, items_UW, history, starts, hidden)
        x_TD = self._placed_steps(x_TD[packing.order], packing.position)
        out: Tensor = self.transformer(x_TD, packing, causal=causal)
        if self.readout is not None:
            out = self.readout(out, points_TD[packing.order], packing.blocks, causal=causal)
        return out[packing.place]

    def _placed_steps(self, x_TD: Tensor, position_T: Tensor) -> Tensor:
        """Return what goes into the transformer of steps at these places of their session."""
        if self.position is not None:
            x_TD = x_TD + self.position(position_T)
        out: Tensor = self.dropout(self.norm(x_TD))
        return out

    def _steps(
        self,
        users_BX: Tensor | None,
        events_TX: Tensor,
        items_UW: Tensor,
        history: History,
        starts: Tensor,
        hidden: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the item (T, D) of each step and all that it knows of itself, start steps last."""
        session_T = torch.repeat_interleave(
            torch.arange(len(history), device=starts.device),
            history.lengths(),
            output_size=len(history.gap),
        )
        points_UD = points_of(items_UW, self.config.geometry)
        back = None if self.frame is None else self.frame.T
        points_TD = x_TD = rotated(F.embedding(history.items.values, points_UD), back)
        if self.event is not None:
            x_TD = x_TD + self.event(events_TX)
        if self.gap is not None:
            x_TD = x_TD + self.gap(gap_classes(history.gap))
        if hidden is not None:
            nothing_T1, instead_D = hidden[0][:, None], hidden[1].to(x_TD.dtype)
            points_TD = torch.where(nothing_T1, instead_D, points_TD)
            x_TD = torch.where(nothing_T1, instead_D, x_TD)
        start_ND = self.start.expand(len(starts), -1)
        points_TD, x_TD = torch.cat([points_TD, start_ND]), torch.cat([x_TD, start_ND])
        if self.user is not None and users_BX is not None:
            x_TD = x_TD + self.user(users_BX)[torch.cat([session_T, starts])]
        return points_TD, x_TD


def gap_classes(gap_T: Tensor) -> Tensor:
    """Return the class (T,) int64 of each time gap in seconds: 0 unknown, else 1 + log2(1 + s)."""
    seconds = gap_T.nan_to_num(0.0).clamp(min=0).double()
    classes = 1 + torch.log2(1 + seconds).long().clamp(max=NUM_GAPS - 2)
    return torch.where(gap_T.isnan(), 0, classes)


def embedded_axes(_config: SessionTransformerConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded rows, for `bundle.transfer`."""
    return {
        "candidate.0.weight": ((1, ITEMS),),
        "user.weight": ((1, USERS),),
        "event.weight": ((1, EVENTS),),
    }


def _linear(in_dim: int, dim: int) -> nn.Linear | None:
    return nn.Linear(in_dim, dim, bias=False) if in_dim else None
