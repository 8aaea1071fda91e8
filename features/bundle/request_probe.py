"""The probe of a model that answers with lists: requests and the lists that it gave.

Wherever the model is opened the requests are answered again, by exact search, so an installation
that computes other lists is found out before it answers anybody.

Shape letters: B requests, K longest list.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys.core.errors import IntegrityError

SCORE_TOLERANCE = 1e-4
"""How far off a replayed score may be."""
_ITEMS, _SCORES = "expected_items", "expected_scores"


def with_answers(
    requests: pa.Table, item_ids: pa.Array, scores_BK: Tensor, rows_BK: Tensor
) -> pa.Table:
    """Return requests with their lists.

    Args:
        requests: B of them.
        item_ids: of the catalogue.
        scores_BK: best first.
        rows_BK: of the catalogue, -1 where a list is short.
    """
    found = rows_BK >= 0
    offsets = torch.zeros(len(rows_BK) + 1, dtype=torch.int64)
    torch.cumsum(found.sum(1), 0, out=offsets[1:])
    bounds = pa.array(offsets.numpy())
    items = item_ids.take(pa.array(rows_BK[found].numpy()))
    scores = pa.array(scores_BK[found].numpy())
    requests = requests.append_column(_ITEMS, pa.LargeListArray.from_arrays(bounds, items))
    return requests.append_column(_SCORES, pa.LargeListArray.from_arrays(bounds, scores))


def without_answers(probe: pa.Table) -> pa.Table:
    """Return the requests alone."""
    return probe.drop_columns([_ITEMS, _SCORES])


def longest_list(probe: pa.Table) -> int:
    """Return K, at least 1."""
    return max([1, *(len(items) for items in probe.column(_ITEMS).to_pylist())])


def check_answers(
    probe: pa.Table,
    item_ids: pa.Array,
    scores_BK: Tensor,
    rows_BK: Tensor,
    *,
    user_key: str,
    who: str,
) -> None:
    """Compare lists with those that the probe's requests were given.

    Args:
        probe: what `with_answers` gave.
        item_ids: of the catalogue.
        scores_BK: best first.
        rows_BK: of the catalogue, -1 where a list is short.
        user_key: column of the users.
        who: what gave the lists, for the message.

    Raises:
        IntegrityError: another item, or a score further off than `SCORE_TOLERANCE`.
    """
    answers = with_answers(probe.select([user_key]), item_ids, scores_BK, rows_BK)
    columns = [answers.column(name) for name in (user_key, _ITEMS, _SCORES)]
    columns += [probe.column(name) for name in (_ITEMS, _SCORES)]
    for user, items, got, wanted, expected in zip(*(c.to_pylist() for c in columns), strict=True):
        if not _same(items[: len(wanted)], wanted, got[: len(wanted)], expected):
            raise IntegrityError(
                f"{who}: the probe for user {user!r} gives {items[:3]}..., {wanted[:3]}... was "
                "recorded: this installation computes other scores than the one that trained the "
                "model"
            )


def _same(items: list[Any], wanted: list[Any], got: list[float], expected: list[float]) -> bool:
    """Equal lists up to rounding: neighbours whose scores nearly tie may have changed places."""
    if len(items) != len(wanted) or not np.allclose(got, expected, rtol=0, atol=SCORE_TOLERANCE):
        return False
    score_of = dict(zip(wanted, expected, strict=True))
    last = expected[-1] if expected else 0.0
    return all(
        abs(score_of.get(item, last) - score) <= SCORE_TOLERANCE
        for item, score in zip(items, got, strict=True)
    )
