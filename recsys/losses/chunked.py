"""The softmax's denominator over many candidates, without ever holding all of its logits.

Shape letters: B queries, C candidates, E width, T excluded pairs in all.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from recsys.data.batch import Jagged

QUERIES, CANDIDATES = 1024, 512
"""Logits that are held at once, 2 MiB of float32: what stays in a core's cache."""
KEPT_BYTES = 128 << 20
"""Most memory that a batch's shares may take to save making the logits again."""


def negative_logsumexp(
    query_BE: Tensor,
    candidate_CE: Tensor,
    excluded: Jagged,
    bias_C: Tensor | None = None,
    *,
    tile: tuple[int, int] = (QUERIES, CANDIDATES),
) -> Tensor:
    """Return logsumexp over each query's negatives, (B,) float32, -inf where it has none.

        out_b = log sum over c not in excluded_b of exp(query_b . candidate_c + bias_c)

    The logits are made tile by tile. What they come to is kept for the gradient up to KEPT_BYTES;
    beyond that they are made again, so memory does not grow with B x C. Products run in bfloat16
    under autocast, sums in float32.

    Args:
        query_BE: (B, E) float, the temperature applied.
        candidate_CE: (C, E) float.
        excluded: B rows of distinct columns below C.
        bias_C: (C,) float, added to the logits; no gradient goes to it.
        tile: queries and candidates whose logits are held at once.
    """
    dtype = query_BE.dtype
    if torch.is_autocast_enabled(query_BE.device.type):
        dtype = torch.get_autocast_dtype(query_BE.device.type)
    denominator: Tensor = _LogSumExp.apply(  # type: ignore[no-untyped-call]
        query_BE, candidate_CE, _Logits(query_BE, candidate_CE, excluded, bias_C, tile, dtype)
    )
    return denominator


class _Logits:
    """The logits of a batch, one tile at a time."""

    def __init__(
        self,
        query_BE: Tensor,
        candidate_CE: Tensor,
        excluded: Jagged,
        bias_C: Tensor | None,
        tile: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        self.query, self.candidate = query_BE.detach().to(dtype), candidate_CE.detach().to(dtype)
        self.bias, self.tile = bias_C, tile
        lengths, device = excluded.lengths(), excluded.values.device
        row_T = torch.repeat_interleave(
            torch.arange(len(excluded), device=device), lengths, output_size=len(excluded.values)
        )
        # Excluded pairs in the order of their tiles.
        across = -(-len(self.candidate) // tile[1])
        tile_T = row_T // tile[0] * across + excluded.values // tile[1]
        order = tile_T.argsort()
        self._row, self._column = row_T[order], excluded.values[order]
        down = -(-len(self.query) // tile[0])
        borders = torch.arange(down * across + 1, device=device)
        self._first = torch.searchsorted(tile_T[order], borders).tolist()
        self._tiles = [
            (slice(row, row + tile[0]), slice(column, column + tile[1]))
            for row in range(0, len(self.query), tile[0])
            for column in range(0, len(self.candidate), tile[1])
        ]

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield queries, candidates and their logits, float32, -inf where excluded."""
        for number, (rows, columns) in enumerate(self._tiles):
            logits = (self.query[rows] @ self.candidate[columns].T).float()
            if self.bias is not None:
                logits += self.bias[columns]
            own = slice(self._first[number], self._first[number + 1])
            if own.stop > own.start:
                place = (self._row[own] - rows.start, self._column[own] - columns.start)
                logits.index_put_(place, logits.new_tensor(-torch.inf))
            yield rows, columns, logits


class _LogSumExp(torch.autograd.Function):
    """Forward keeps the tiles' shares where they are few, else B numbers."""

    @staticmethod
    def forward(ctx: Any, query_BE: Tensor, candidate_CE: Tensor, logits: _Logits) -> Any:
        out_B = torch.full(
            (len(query_BE),), -torch.inf, dtype=torch.float32, device=query_BE.device
        )
        size = len(query_BE) * len(candidate_CE) * logits.query.element_size()
        ctx.kept = [] if size <= KEPT_BYTES else None
        for rows, columns, part in logits:
            if ctx.kept is None:
                out_B[rows] = torch.logaddexp(out_B[rows], part.logsumexp(1))
                continue
            top = part.amax(1)
            top = torch.where(top.isfinite(), top, 0.0)
            part.sub_(top[:, None]).exp_()
            out_B[rows] = torch.logaddexp(out_B[rows], part.sum(1).log_() + top)
            ctx.kept.append((rows, columns, top, part.to(logits.query.dtype)))
        ctx.logits, ctx.dtypes = logits, (query_BE.dtype, candidate_CE.dtype)
        ctx.save_for_backward(out_B)
        return out_B

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_B,), (out_B,), logits = grads, ctx.saved_tensors, ctx.logits
        # Where there is no negative, exp(-inf - -inf) is no number: nothing flows there.
        finite_B = out_B.isfinite()
        shift_B, grad_B = torch.where(finite_B, out_B, 0.0), torch.where(finite_B, grad_B, 0.0)
        query, candidate = logits.query, logits.candidate
        query_grad = torch.zeros(query.shape, dtype=torch.float32, device=query.device)
        candidate_grad = torch.zeros(candidate.shape, dtype=torch.float32, device=query.device)
        if ctx.kept is None:
            for rows, columns, part in logits:
                share = part.sub_(shift_B[rows, None]).exp_().mul_(grad_B[rows, None])
                share = share.to(query.dtype)
                query_grad[rows] += share @ candidate[columns]
                candidate_grad[columns] += share.T @ query[rows]
        else:
            for rows, columns, top, share in ctx.kept:
                factor = ((top - shift_B[rows]).exp() * grad_B[rows])[:, None]
                query_grad[rows] += factor * (share @ candidate[columns])
                candidate_grad[columns] += share.T @ (query[rows] * factor).to(query.dtype)
        of_query, of_candidate = ctx.dtypes
        return query_grad.to(of_query), candidate_grad.to(of_candidate), None
