"""New tokens into a ring or a buffer in torch: the executable specification."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.kernels.common.naive import rotate


def rotate_write(
    key: Tensor,
    value: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    into_key: Tensor,
    into_value: Tensor,
    at: int | Tensor,
    tokens: Tensor | None = None,
) -> None:
    """Write tokens into slots at, at + 1, …; after the last slot comes the first.

    Args:
        key, value: `[1, H_kv, n, D]`, n at most the number of slots.
        rotation: cosines and sines `[n, R]` of the keys, or `[H_kv, n, R]` where heads differ; None
            to write them as they are.
        into_key, into_value: `[1, H_kv, slots, D]`.
        at: a number, or an int64 tensor without dimensions on the same device, which is not read
            before the device gets there; the tokens then fit before the last slot.
        tokens: which of `key` and `value` are written, int64 `[H_kv, n]`; None for all, in order.
    """
    if tokens is not None:
        key, value = picked(key[0], tokens)[None], picked(value[0], tokens)[None]
    n, slots = key.shape[2], into_key.shape[2]
    turned = key if rotation is None else rotate(key, rotation)
    if isinstance(at, Tensor):
        where = at.view(1) if n == 1 else at + torch.arange(n, device=at.device)
        into_key.index_copy_(2, where, turned.to(into_key.dtype))
        into_value.index_copy_(2, where, value.to(into_value.dtype))
        return
    done = 0
    while done < n:
        first = (at + done) % slots
        count = min(n - done, slots - first)
        into_key[:, :, first : first + count] = turned[:, :, done : done + count]
        into_value[:, :, first : first + count] = value[:, :, done : done + count]
        done += count


def picked(states: Tensor, tokens: Tensor) -> Tensor:
    """Some tokens of each head, int64 `[H, k]`, of `[H, n, D]`: `[H, k, D]`."""
    heads, count, dim = states.shape
    first = count * torch.arange(heads, device=tokens.device)[:, None]
    rows = states.reshape(-1, dim).index_select(0, (tokens + first).flatten())
    return rows.view(heads, -1, dim)
