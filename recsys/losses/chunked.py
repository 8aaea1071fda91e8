"""The softmax's denominator over many candidates, without ever holding all of its logits.

Shape letters: B queries, C candidates, E width, T excluded pairs in all.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.batch import Jagged

CHUNK_CELLS = 1 << 22
"""Logits that are held at once: 16 MiB of float32."""


def negative_logsumexp(
    query_BE: Tensor,
    candidate_CE: Tensor,
    excluded: Jagged,
    bias_C: Tensor | None = None,
    *,
    chunk_cells: int = CHUNK_CELLS,
) -> Tensor:
    """Return logsumexp over each query's negatives, (B,) float32, -inf where it has none.

        out_b = log sum over c not in excluded_b of exp(query_b . candidate_c + bias_c)

    The logits are made chunk by chunk of the queries and made again for the gradient, so memory
    does not grow with B x C. Products run in bfloat16 where autocast says so, sums in float32.

    Args:
        query_BE: (B, E) float, the temperature applied.
        candidate_CE: (C, E) float.
        excluded: B rows of distinct columns below C.
        bias_C: (C,) float, added to the logits; no gradient goes to it.
        chunk_cells: logits held at once; at least one query's.
    """
    dtype = query_BE.dtype
    if torch.is_autocast_enabled(query_BE.device.type):
        dtype = torch.get_autocast_dtype(query_BE.device.type)
    rows = max(1, chunk_cells // max(len(candidate_CE), 1))
    denominator: Tensor = _LogSumExp.apply(  # type: ignore[no-untyped-call]
        query_BE, candidate_CE, excluded, bias_C, rows, dtype
    )
    return denominator


class _LogSumExp(torch.autograd.Function):
    """Forward keeps B numbers; backward makes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BE: Tensor,
        candidate_CE: Tensor,
        excluded: Jagged,
        bias_C: Tensor | None,
        rows: int,
        dtype: torch.dtype,
    ) -> Any:
        query, candidate = query_BE.to(dtype), candidate_CE.to(dtype)
        out_B = torch.empty(len(query), dtype=torch.float32, device=query.device)
        for start in range(0, len(query), rows):
            stop = min(start + rows, len(query))
            logits = _logits(query, candidate, excluded, bias_C, start, stop)
            out_B[start:stop] = logits.logsumexp(1)
        ctx.excluded, ctx.rows = excluded, rows
        ctx.save_for_backward(query, candidate, bias_C, out_B)
        ctx.dtypes = query_BE.dtype, candidate_CE.dtype
        return out_B

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_B,) = grads
        query, candidate, bias_C, out_B = ctx.saved_tensors
        # Where there is no negative, exp(-inf - -inf) is no number: nothing flows there.
        finite_B = out_B.isfinite()
        shift_B = torch.where(finite_B, out_B, 0.0)
        grad_B = torch.where(finite_B, grad_B, 0.0)
        query_grad = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        candidate_grad = torch.zeros(candidate.shape, dtype=torch.float32, device=query.device)
        for start in range(0, len(query), ctx.rows):
            stop = min(start + ctx.rows, len(query))
            logits = _logits(query, candidate, ctx.excluded, bias_C, start, stop)
            share = logits.sub_(shift_B[start:stop, None]).exp_()
            share = share.mul_(grad_B[start:stop, None]).to(query.dtype)
            query_grad[start:stop] = share @ candidate
            candidate_grad += share.T @ query[start:stop]
        of_query, of_candidate = ctx.dtypes
        return query_grad.to(of_query), candidate_grad.to(of_candidate), None, None, None, None


def _logits(
    query: Tensor,
    candidate: Tensor,
    excluded: Jagged,
    bias_C: Tensor | None,
    start: int,
    stop: int,
) -> Tensor:
    """Return the logits of queries start..stop, float32, -inf where excluded."""
    logits = (query[start:stop] @ candidate.T).float()
    if bias_C is not None:
        logits += bias_C
    first, last = excluded.offsets[start], excluded.offsets[stop]
    lengths = excluded.offsets[start : stop + 1].diff()
    row_T = torch.repeat_interleave(torch.arange(stop - start, device=query.device), lengths)
    return logits.index_put_((row_T, excluded.values[first:last]), logits.new_tensor(-torch.inf))
