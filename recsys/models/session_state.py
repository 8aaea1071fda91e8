"""A session that is followed event by event: an event costs one step, not the whole session.

Keys and values of the steps so far are kept: in a causal model later steps do not change them. A
model sees the last `history_length` steps alone, so once a session is longer, each event moves
all that it sees by a place. What was kept no longer holds then, and all `history_length` steps are
encoded again: exact, at the price of `SessionTransformer.encode_queries`.

    state = SessionState.empty(model, user)
    state = state.append(item_vectors, item_row, event_features, gap=12.0)
    scores = item_vectors @ state.query()[0]

Shape letters: N items, T steps to come, L <= history_length steps that the model sees, X width of
embedded user features, D width of a state, W of a vector.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, History, Jagged
from recsys.layers.geometry import vector_width
from recsys.layers.transformer import Cache
from recsys.models.session import EVENTS, USERS, SessionTransformer


@dataclass(frozen=True)
class SessionState:
    """What a model makes of a session so far; it holds for the weights that made it.

    A further step gives a new state and leaves this one as it is, so a session may branch.

    model: in evaluation mode. user (1, X): embedded. vectors (L, W): the items of the steps
    as they were when the steps came. history: the steps, one row, items 0 to L - 1 of `vectors`.
    cache: keys and values of the steps; of none where the next step moves them all. state (1, D):
    of the last step, or of a start.
    """

    model: SessionTransformer
    user: Tensor
    vectors: Tensor
    history: History
    cache: Cache
    state: Tensor

    @classmethod
    @torch.no_grad()
    def empty(cls, model: SessionTransformer, users: FeatureBlock) -> "SessionState":
        """Return the state before the first event, of which only the user is known.

        Args:
            model: in evaluation mode.
            users: one row of user features.

        Raises:
            ValueError: the model is in training mode, or there is not one user.
        """
        if model.training:
            raise ValueError("a session is followed without dropout: call model.eval() first")
        if len(users) != 1:
            raise ValueError(f"a session has one user, got {len(users)} rows of user features")
        users_1X = model.embedding.side(USERS, users)
        nothing = _no_steps(model.embedding.plan.layouts[EVENTS], users_1X.device)
        vectors = users_1X.new_zeros(0, vector_width(model.config.dim, model.config.geometry))
        state = model.last_states(users_1X, vectors, nothing)
        return cls(model, users_1X, vectors, nothing, model.no_steps(), state)

    def append(
        self, item_vectors: Tensor, item_row: int, event_features: FeatureBlock, gap: float
    ) -> "SessionState":
        """Return the state after one more event.

        Args:
            item_vectors: (N, W), as `encode_items` gives them.
            item_row: whose of them the event is about.
            event_features: one row of what else is known of the event.
            gap: seconds since the event before: 0 for a session's first, NaN where not known.

        Raises:
            ValueError: there is not one row of event features.
        """
        device = item_vectors.device
        item = Jagged(torch.tensor([item_row], device=device), torch.arange(2, device=device))
        step = History(item, event_features, torch.tensor([gap], device=device))
        return self.extend(item_vectors, step)

    @torch.no_grad()
    def extend(self, item_vectors: Tensor, history: History) -> "SessionState":
        """Return the state after T more events, which are encoded together.

        Args:
            item_vectors: (N, W), as `encode_items` gives them.
            history: one row of rows of `item_vectors`, oldest first.

        Raises:
            ValueError: there is not one history, or not one row of event features a step.
        """
        if len(history) != 1 or len(history.features) != len(history.gap):
            raise ValueError(
                f"a session continues by one row of steps, each with its features: got "
                f"{len(history)} rows, {len(history.gap)} steps, {len(history.features)} features"
            )
        if not len(history.gap):
            return self
        vectors = torch.cat([self.vectors, item_vectors[history.items.values]])
        steps, limit = _followed(self.history, history), self.model.config.history_length
        nothing = self.model.no_steps()
        if len(vectors) > limit:
            vectors, steps = vectors[-limit:], _last(steps, limit)
            state = self.model.last_states(self.user, vectors, steps)
            return replace(self, vectors=vectors, history=steps, cache=nothing, state=state)
        states, cache = self.model.extend(self.user, item_vectors, history, self.cache)
        kept = cache if len(vectors) < limit else nothing
        return replace(self, vectors=vectors, history=steps, cache=kept, state=states[-1:])

    def query(self) -> Tensor:
        """Return the vector (1, W) that asks for what comes next, as `encode_queries` does."""
        return self.model.queries_of(self.state)


def _no_steps(layout: FeatureLayout, device: torch.device) -> History:
    """Return one empty row."""
    none = Jagged(torch.zeros(0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    no_values = Jagged(none.values, none.offsets[:1])
    features = FeatureBlock(
        torch.zeros(0, len(layout.single), dtype=torch.int64),
        (no_values,) * len(layout.multi),
        torch.zeros(0, len(layout.dense)),
    )
    return History(none, features, torch.zeros(0)).to(device)


def _followed(first: History, then: History) -> History:
    """Return one row of the steps of two, its items numbered in order."""
    gap = torch.cat([first.gap, then.gap])
    return History(_numbered(gap), first.features.above(then.features), gap)


def _last(steps: History, limit: int) -> History:
    """Return the last steps of one row: no time passed before the first of them."""
    gap = steps.gap[-limit:]
    first = torch.where(gap[:1].isnan(), gap[:1], 0.0)
    gap = torch.cat([first, gap[1:]])
    rows = torch.arange(len(steps.gap) - limit, len(steps.gap), device=gap.device)
    return History(_numbered(gap), steps.features.take(rows), gap)


def _numbered(gap_L: Tensor) -> Jagged:
    count = len(gap_L)
    offsets = torch.tensor([0, count], device=gap_L.device)
    return Jagged(torch.arange(count, device=gap_L.device), offsets)
