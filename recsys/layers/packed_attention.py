"""Attention within sessions of equal length, one block of sessions after the other.

Vaswani et al., "Attention Is All You Need", NIPS 2017, section 3.2: softmax(q k^T / sqrt(A)) v. On
a CPU this takes half the time of `scaled_dot_product_attention`, whose backward pass makes the
shares again: for sessions of some hundred steps they are small enough to keep (L numbers a step and
head). On other devices the library's kernel runs.

Shape letters: T steps in all, H heads, A width of a head, N sessions of a block, L their length,
M new steps of one session, K steps before them, S = K + M.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Blocks = tuple[tuple[int, int], ...]
"""Number of sessions and their length, in the order of their steps."""


def packed_attention(qkv_T3HA: Tensor, blocks: Blocks, *, causal: bool) -> Tensor:
    """Return what each step gathers from its session, (T, H * A), in the dtype of `qkv_T3HA`.

    Args:
        qkv_T3HA: queries, keys and values of all steps, block after block, N x L steps in each.
        blocks: N and L of each; they cover the T steps.
        causal: a step sees itself and those before it, else all of its session.
    """
    if not blocks:
        return qkv_T3HA[:, 0].flatten(1)
    sizes = [n * length for n, length in blocks]
    attention = _on_cpu if qkv_T3HA.device.type == "cpu" else _by_library
    parts = [
        attention(part, n, length, causal)
        for part, (n, length) in zip(qkv_T3HA.split(sizes), blocks, strict=True)
    ]
    return torch.cat(parts)


def attention_that_goes_on(qkv_M3HA: Tensor, past_K2HA: Tensor) -> tuple[Tensor, Tensor]:
    """Return what M more steps of one session gather, (M, H * A), and all its keys and values.

    They are the last M rows of causal `packed_attention` over the whole session. `past_K2HA`: keys
    and values of the K steps before; those of all K + M come back, (K + M, 2, H, A).
    """
    known_S2HA = torch.cat([past_K2HA, qkv_M3HA[:, 1:]])
    q_1HMA = qkv_M3HA[:, 0].transpose(0, 1)[None]
    k_1HSA, v_1HSA = known_S2HA.permute(1, 2, 0, 3)[:, None]
    seen = None  # a lone step sees all that were
    if len(qkv_M3HA) > 1:
        shape = len(qkv_M3HA), len(known_S2HA)
        seen = torch.ones(shape, dtype=torch.bool, device=qkv_M3HA.device).tril(len(past_K2HA))
    mixed_1HMA = F.scaled_dot_product_attention(q_1HMA, k_1HSA, v_1HSA, attn_mask=seen)
    return mixed_1HMA[0].transpose(0, 1).flatten(1), known_S2HA


def padded_attention(qkv_BM3HA: Tensor) -> Tensor:
    """Return causal `packed_attention` of sessions padded at their ends, (B, M, H * A)."""
    q, k, v = qkv_BM3HA.permute(2, 0, 3, 1, 4).unbind(0)
    place_M = torch.arange(qkv_BM3HA.shape[1])
    seen_MM = place_M.unsqueeze(1) >= place_M
    logits = q @ k.transpose(2, 3) * qkv_BM3HA.shape[4] ** -0.5
    share = torch.where(seen_MM, logits, torch.finfo(logits.dtype).min).softmax(-1)
    return (share @ v).transpose(1, 2).flatten(2)


def _on_cpu(part: Tensor, n: int, length: int, causal: bool) -> Tensor:
    if length == 1:  # nothing to choose from
        return part[:, 2].flatten(1)
    attended: Tensor = _Attention.apply(part, n, length, causal)  # type: ignore[no-untyped-call]
    return attended


def _by_library(part: Tensor, n: int, length: int, causal: bool) -> Tensor:
    q, k, v = part.unflatten(0, (n, length)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return mixed.transpose(1, 2).reshape(n * length, -1)


class _Attention(torch.autograd.Function):
    """(N * L, 3, H, A) to (N * L, H * A); the shares (N * H, L, L) are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, n: int, length: int, causal: bool) -> Any:
        _, _, num_heads, width = part.shape
        by_head = part.view(n, length, 3, num_heads, width).permute(2, 0, 3, 1, 4)
        q, k, v = by_head.reshape(3, n * num_heads, length, width).unbind(0)
        unseen = q.new_zeros(length, length)
        if causal:
            unseen = unseen.fill_(-torch.inf).triu_(1)
        logits = torch.baddbmm(unseen, q, k.transpose(1, 2), alpha=width**-0.5)
        share = logits.softmax(-1)
        ctx.save_for_backward(q, k, v, share)
        ctx.shape = n, length, num_heads, width
        mixed = torch.bmm(share, v).view(n, num_heads, length, width)
        return mixed.transpose(1, 2).reshape(n * length, num_heads * width)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, share = ctx.saved_tensors
        n, length, num_heads, width = ctx.shape
        grad = grads[0].view(n, length, num_heads, width).transpose(1, 2)
        grad = grad.reshape(n * num_heads, length, width)
        of_qkv = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device)
        torch.bmm(share.transpose(1, 2), grad, out=of_qkv[2])
        of_share = torch.bmm(grad, v.transpose(1, 2))
        of_logits = torch._softmax_backward_data(of_share, share, -1, share.dtype)
        torch.bmm(of_logits, k, out=of_qkv[0])
        torch.bmm(of_logits.transpose(1, 2), q, out=of_qkv[1])
        of_qkv[:2].mul_(width**-0.5)
        by_step = of_qkv.view(3, n, num_heads, length, width).permute(1, 3, 0, 2, 4)
        return by_step.reshape(n * length, 3, num_heads, width), None, None, None
