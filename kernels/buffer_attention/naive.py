"""Attention over a buffer of fixed capacity in torch: the executable specification.

Where the tokens stand may be given by a tensor, so that a recorded step can be replayed: on a GPU
the host does not read its value, and all of the buffer is attended to under a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.kernels.common.naive import join, rotate

Table = tuple[Tensor, Tensor]  # cosines and sines [n, R]


def buffer_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    at: int | Tensor | None,
    scaling: float,
    rotation: Table | None = None,
) -> Tensor:
    """Attention of the tokens in slots at, at + 1, … over all slots up to their own.

    Args:
        query: `[1, H, n, D]`. key, value: `[1, H_kv, slots, D]`, keys rotated, of which slots up
            to at + n - 1 are filled.
        at: a number, or an int64 tensor without dimensions on the same device; None where every
            query sees every slot.
        rotation: of the queries, `[n, R]`; None where they are rotated already.

    Returns:
        `[1, n, H, D]`.
    """
    if rotation is not None:
        query = rotate(query, rotation)
    key, value, seen = _visible(query, key, value, at)
    out = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=seen,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


def buffer_attention_lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    at: int | Tensor | None,
    scaling: float,
    rotation: Table | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """As `buffer_attention`, to be joined with attention over other tokens.

    Args:
        beside: what this, or `packed_attention`, returned for the same queries over other tokens;
            joined in here.

    Returns:
        out float32 `[1, H, n, D]`, and the log-sum-exp of the scores, float32 `[1, H, n]`.
    """
    if rotation is not None:
        query = rotate(query, rotation)
    key, value, seen = _visible(query, key, value, at)
    _, heads, n, head_dim = query.shape
    q = query.float().reshape(key.shape[1], -1, head_dim) * scaling  # [H_kv, G * n, D]
    scores = torch.matmul(q, key[0].float().transpose(1, 2))
    if seen is not None:
        shown = seen.expand(heads // key.shape[1], -1, -1).reshape(q.shape[1], -1)
        scores = scores.masked_fill(~shown, float("-inf"))
    lse = scores.logsumexp(dim=-1)
    out = torch.matmul((scores - lse[..., None]).exp(), value[0].float())
    found = out.view(1, heads, n, head_dim), lse.view(1, heads, n)
    return found if beside is None else join(*beside, *found)


def _visible(
    query: Tensor, key: Tensor, value: Tensor, at: int | Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values to multiply, and which of them each query sees, bool `[n, m]`; None: all."""
    n = query.shape[2]
    if at is None:
        return key, value, None
    if isinstance(at, Tensor) and not _host_knows(at):
        slots = torch.arange(key.shape[2], device=at.device)
        return key, value, slots <= at + torch.arange(n, device=at.device)[:, None]
    end = int(at) + n
    key, value = key[:, :, :end], value[:, :, :end]
    if n == 1:
        return key, value, None
    seen = torch.ones(n, end, dtype=torch.bool, device=key.device)
    return key, value, seen.tril(diagonal=end - n)


def _host_knows(at: Tensor) -> bool:
    """Whether its value can be read without waiting for a device."""
    return at.device.type == "cpu"
