"""Two towers over one unified embedding: one for queries, one for items.

The sampling-bias-corrected two-tower of Yi et al., "Sampling-Bias-Corrected Neural Modeling
for Large Corpus Item Recommendations", RecSys 2019, section 3, over the unified embedding of
Coleman et al. 2023. Both towers end on the unit sphere, where a logit is the cosine over a
temperature, or in the unit ball, where it is minus half the squared distance over it
(`recsys.layers.geometry`).

Of several interests a query has that many vectors, and an item's score is the best over them
(Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020).

The query tower sees the user's and the request's features and the history, pooled over the
*candidate tower's* vectors of its items: history and candidates share every parameter,
an item without a training row counts in a history by its features, and at serving time a
history costs no table lookup, only rows of the item vectors.

Shape letters: B queries, U distinct items, C <= U candidates, E width out, V and W widths in,
H heads of the history, I interests.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock, Jagged, PairBatch
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.geometry import candidate_vectors, points_of, query_vectors_of, tower_width
from recsys.layers.mlp import mlp
from recsys.layers.pooling import InterestPooling, RecencyPooling
from recsys.layers.smoothing import ItemSmoothing
from recsys.models.two_tower_config import TwoTowerConfig

ITEMS, QUERY = 0, 1
"""The sides of the embedding's plan, in order."""


class TwoTower(nn.Module):
    """Query and candidate tower; independent of losses, optimizers and data."""

    def __init__(self, config: TwoTowerConfig, embedding: UnifiedEmbedding) -> None:
        super().__init__()
        self.config = config
        self.embedding = embedding
        width, dropout = tower_width(config.dim, config.geometry), config.dropout
        self.candidate = mlp(
            embedding.plan.width(ITEMS), config.hidden, width, dropout=dropout, norm=config.norm
        )
        self.history = RecencyPooling(config.history_heads, config.history_length)
        query_dim = embedding.plan.width(QUERY) + config.history_heads * config.dim + 1
        self.interests: InterestPooling | None = None
        if config.interests > 1:
            self.interests = InterestPooling(config.interests, config.dim, config.history_length)
            query_dim += config.dim
        self.query = mlp(query_dim, config.hidden, config.dim, dropout=dropout, norm=config.norm)
        self.smoothing: ItemSmoothing | None = None
        self._centre_start()
        log_temperature = torch.tensor(math.log(config.temperature))
        self.log_temperature = nn.Parameter(log_temperature, config.learn_temperature)

    @torch.no_grad()
    def _centre_start(self) -> None:
        """Start without a direction that all items or all queries share.

        Offsets of the last layers and the weights of a history's length would be one: smoothing
        and pooling add it up, and training has to undo it first.
        """
        first = self.query[0]
        assert isinstance(first, nn.Linear)
        length = first.in_features - 1 - (self.config.dim if self.interests is not None else 0)
        first.weight[:, length] = 0.0
        for last in (self.candidate[-1], self.query[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.bias)

    @property
    def temperature(self) -> Tensor:
        """What cosines are divided by, a positive scalar."""
        return self.log_temperature.exp()

    def forward(
        self, batch: PairBatch, gather: Callable[[Tensor, int], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return vectors of queries, (B, E) or (B, I, E), and of candidates (C, E).

        `gather` makes the vectors of all U items from those of the batch's own, where items are
        shared out among processes: (n, E) and U to (U, E).
        """
        users, query = self._users_of_graph(), batch.query
        items_UW, asked_BV = self.embedding(
            [batch.items, query if users is None else query.above(users)]
        )
        query_BV, users_MV = asked_BV.split([len(query), len(asked_BV) - len(query)])
        raw_UR = self.candidate(items_UW).float()
        if self.smoothing is not None:  # the batch's items are the whole catalogue
            raw_UR = self._smoothed(raw_UR, self._without_history(users_MV))
        items_UE = self._placed(raw_UR)
        if gather is not None:
            items_UE = gather(items_UE, len(batch.item_rows))
        query_BE = self._queries(query_BV, items_UE, batch.history)
        return query_BE, items_UE[: batch.num_candidates]

    def encode_items(self, items: FeatureBlock) -> Tensor:
        """Return vectors (N, E) of items by themselves: what a new item is served with."""
        return self._placed(self.raw_items(items))

    def raw_items(self, items: FeatureBlock) -> Tensor:
        """Return what the candidate tower gives, (N, R) float32, before it is placed."""
        return self.candidate(self.embedding.side(ITEMS, items)).float()

    def encode_queries(self, query: FeatureBlock, item_vectors: Tensor, history: Jagged) -> Tensor:
        """Return vectors (B, E) or (B, I, E); history points into `item_vectors` (N, E)."""
        return self._queries(self.embedding.side(QUERY, query), item_vectors, history)

    def raw_users(self, users: FeatureBlock) -> Tensor:
        """Return what the query tower gives for users without a history, (M, E) float32."""
        return self._without_history(self.embedding.side(QUERY, users))

    def placed_catalogue(self, raw_NR: Tensor, *, chunk_rows: int) -> Tensor:
        """Return the vectors (N, E) of the whole catalogue, of which `raw_items` gave (N, R).

        Where it is smoothed, its users are encoded, `chunk_rows` at once.
        """
        users = self._users_of_graph()
        if users is not None:
            some = torch.arange(len(users), device=raw_NR.device).split(chunk_rows)
            raw_users_ME = torch.cat([self.raw_users(users.take(chunk)) for chunk in some])
            raw_NR = self._smoothed(raw_NR, raw_users_ME)
        return self._placed(raw_NR)

    def _users_of_graph(self) -> FeatureBlock | None:
        if self.smoothing is None:
            return None
        return self.smoothing.users.to(self.log_temperature.device)

    def without_gain(self, queries: Tensor) -> tuple[Tensor, Tensor | None]:
        """Part query vectors from what the items of their histories gain: nothing."""
        return queries, None

    def item_space(self) -> tuple[bytes, list[Tensor]]:
        """Return what else than the tower and the table decides on an item's vector.

        Of smoothing the users' vectors and the graph move items, too.
        """
        if self.smoothing is None:
            return b"", []
        graph = self.smoothing.get_buffer("to_items")
        parts = [*self.query.state_dict().values(), graph.crow_indices(), graph.col_indices()]
        return self.config.smoothing.model_dump_json().encode(), parts

    @torch.no_grad()
    def rotate(self, rotation_EE: Tensor) -> None:
        """Put x R in place of every point x of items and queries; products stay what they are.

        The last layers take R in, and what reads the points of a history takes it back out.

        rotation_EE: orthogonal.
        """
        turn_EE, dim = rotation_EE.double(), self.config.dim
        first, pooled = self.query[0], self.embedding.plan.width(QUERY)
        assert isinstance(first, nn.Linear)
        readers = [first.weight[:, pooled + dim * h :] for h in range(self.config.history_heads)]
        if self.interests is not None:
            readers += [first.weight[:, -dim:], self.interests.hidden.weight]
        for reader in readers:
            reader[:, :dim] = (reader[:, :dim].double() @ turn_EE).to(reader.dtype)
        for last in (self.candidate[-1], self.query[-1]):
            assert isinstance(last, nn.Linear)
            for rows in (last.weight, last.bias):
                rows[:dim] = (turn_EE.T @ rows[:dim].double()).to(rows.dtype)

    def _smoothed(self, raw_NR: Tensor, users_ME: Tensor) -> Tensor:
        """Smooth the points; a bias says what it says of an item alone."""
        assert self.smoothing is not None
        points_NE, bias = raw_NR[:, : self.config.dim], raw_NR[:, self.config.dim :]
        return torch.cat([self.smoothing(points_NE, users_ME), bias], dim=1)

    def _without_history(self, query_MV: Tensor) -> Tensor:
        config = self.config
        width = (config.history_heads + (config.interests > 1)) * config.dim + 1
        nothing = query_MV.new_zeros(len(query_MV), width)
        return self.query(torch.cat([query_MV, nothing], dim=1)).float()

    def _placed(self, raw_NR: Tensor) -> Tensor:
        return candidate_vectors(raw_NR, self.config.geometry)

    def _queries(self, query_BV: Tensor, items_UE: Tensor, history: Jagged) -> Tensor:
        geometry = self.config.geometry
        points_UE = points_of(items_UE, geometry)
        pooled_BHE = self.history(points_UE, history)
        length_B1 = history.lengths().float().log1p().unsqueeze(1)
        inputs_BX = torch.cat([query_BV, pooled_BHE.flatten(1), length_B1], dim=1)
        # A user's next item tends to resemble the earlier ones: the tower learns the difference.
        like_BE = pooled_BHE.mean(1)
        if self.interests is None:
            return query_vectors_of(self.query(inputs_BX).float() + like_BE, geometry)
        interest_BIE = self.interests(points_UE, history)
        inputs_BIX = inputs_BX.unsqueeze(1).expand(-1, interest_BIE.shape[1], -1)
        own_BIE = self.query(torch.cat([inputs_BIX, interest_BIE], dim=2)).float()
        own_BIE = own_BIE + interest_BIE + like_BE.unsqueeze(1)
        return query_vectors_of(own_BIE.flatten(0, 1), geometry).view(*own_BIE.shape[:2], -1)


def embedded_axes(_config: TwoTowerConfig) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return which axes of which weights run over the embedded rows, for `bundle.transfer`."""
    return {"candidate.0.weight": ((1, ITEMS),), "query.0.weight": ((1, QUERY),)}
