"""Queries of retrieval models over padded histories: what an exported graph computes.

The models themselves pack histories of unlike length, which keeps training and batch jobs free of
padding, but takes sorts and sums over ragged rows that graphs of other runtimes lack. The
functions here give the same numbers for histories that are padded at their ends, from the same
weights, in evaluation mode.

Shape letters: B queries, M longest history, E width of a point, W of a vector, H heads of the
history, I interests, D width of a step, V and X widths of what is embedded.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.layers.geometry import query_vectors_of
from recsys.layers.pooling import InterestPooling
from recsys.models.kind import Reads
from recsys.models.session import NUM_GAPS, SessionTransformer
from recsys.models.two_tower import TwoTower

_LOWEST = torch.finfo(torch.float32).min


def two_tower_queries(
    model: TwoTower, query_BV: Tensor, points_BME: Tensor, length_B: Tensor
) -> Tensor:
    """Return the vectors (B, W) or (B, I, W): `TwoTower.encode_queries` of padded histories.

    Args:
        model: in evaluation mode.
        query_BV: what the embedding gave of users and requests.
        points_BME: points of the items of each history, oldest first.
        length_B: (B,) int64, how many of the M are there, history_length at most.
    """
    place_M = torch.arange(points_BME.shape[1])
    there_BM = place_M < length_B.unsqueeze(1)
    back_BM = (length_B.unsqueeze(1) - 1 - place_M).clamp(min=0)
    recency_BMH = F.embedding(back_BM, model.history.recency)
    pooled_BHE = _shares(recency_BMH, there_BM).transpose(1, 2) @ points_BME
    length_B1 = length_B.float().log1p().unsqueeze(1)
    inputs_BX = torch.cat([query_BV, pooled_BHE.flatten(1), length_B1], dim=1)
    like_BE = pooled_BHE.mean(1)
    geometry = model.config.geometry
    if model.interests is None:
        return query_vectors_of(model.query(inputs_BX).float() + like_BE, geometry)
    interest_BIE = _interests(model.interests, points_BME, back_BM, there_BM)
    inputs_BIX = inputs_BX.unsqueeze(1).expand(-1, model.config.interests, -1)
    own_BIE = model.query(torch.cat([inputs_BIX, interest_BIE], dim=2)).float()
    own_BIE = own_BIE + interest_BIE + like_BE.unsqueeze(1)
    vectors = query_vectors_of(own_BIE.flatten(0, 1), geometry)
    return vectors.unflatten(0, (-1, model.config.interests))


def session_queries(
    model: SessionTransformer,
    users_BX: Tensor,
    events_BMX: Tensor,
    points_BMD: Tensor,
    gap_BM: Tensor,
    length_B: Tensor,
) -> Tensor:
    """Return what `SessionTransformer.encode_queries` does, of padded sessions.

    Args:
        model: in evaluation mode.
        users_BX: what the embedding gave of users.
        events_BMX: what it gave of what is known of each step.
        points_BMD: points of the items of each session, oldest first.
        gap_BM: seconds since the step before: 0 at the first, NaN where not known.
        length_B: (B,) int64, how many of the M are there, history_length at most.
    """
    x_BMD = points_BMD
    if model.event is not None:
        x_BMD = x_BMD + model.event(events_BMX)
    if model.gap is not None:
        x_BMD = x_BMD + model.gap(padded_gap_classes(gap_BM))
    # A session without a step has one of its own, of which the user alone is known.
    empty_B11 = (length_B == 0)[:, None, None]
    points_BMD = torch.where(empty_B11, model.start, points_BMD)
    x_BMD = torch.where(empty_B11, model.start, x_BMD)
    if model.user is not None:
        x_BMD = x_BMD + model.user(users_BX).unsqueeze(1)
    if model.position is not None:
        x_BMD = x_BMD + model.position.weight[: x_BMD.shape[1]]
    states_BMD = model.transformer.padded(model.norm(x_BMD))
    # What is behind the last step is padding, which a causal model does not see.
    last_B11 = (length_B.clamp(min=1) - 1)[:, None, None]
    if model.readout is not None:
        states_BMD = model.readout.padded(states_BMD, points_BMD)
    last_B1D = states_BMD.gather(1, last_B11.expand(-1, 1, states_BMD.shape[2]))
    return model.queries_of(last_B1D.squeeze(1))


def padded_gap_classes(gap: Tensor) -> Tensor:
    """Return what `recsys.models.session.gap_classes` does, without a logarithm to round."""
    powers = 2.0 ** torch.arange(1, NUM_GAPS - 1, dtype=torch.float64)
    seconds = torch.where(gap.isnan(), 0.0, gap).clamp(min=0).double()
    classes = 1 + (1 + seconds.unsqueeze(-1) >= powers).sum(-1)
    return torch.where(gap.isnan(), 0, classes)


def _interests(
    pooling: InterestPooling, points_BME: Tensor, back_BM: Tensor, there_BM: Tensor
) -> Tensor:
    """Return (B, I, E): `InterestPooling` of padded histories."""
    scale = points_BME.shape[2] ** 0.5
    scores_BMI = pooling.attention(torch.tanh(pooling.hidden(points_BME * scale))).float()
    scores_BMI = scores_BMI + F.embedding(back_BM, pooling.recency)
    return _shares(scores_BMI, there_BM).transpose(1, 2) @ points_BME


def _shares(scores_BMH: Tensor, there_BM: Tensor) -> Tensor:
    """Return the softmax of each history, (B, M, H), 0 where nothing is there."""
    there_BM1 = there_BM.unsqueeze(2)
    return torch.where(there_BM1, scores_BMH, _LOWEST).softmax(1) * there_BM1


PADDED: Mapping[Reads, Callable[..., Tensor]] = {
    "request": two_tower_queries,
    "steps": session_queries,
}
"""By what an example of the model is. All take the model, what is embedded of the user or request,
then what is known of the history: for steps what is embedded of each, the points of its items, for
steps the gaps, and its length."""
