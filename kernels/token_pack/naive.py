"""Scales per token in torch: the executable specification (KIVI, arXiv 2402.02750).

32 channels of a token (the whole head, where it is no multiple of 32) share a scale and a least
value, both float16; an element is `least + scale * code`, its code a whole number from 0 on.

Layout
    block        scales float16 `[H, T, groups]`, least values the same, then the plane of codes
                 (`kernels/pack/form.py`). A block of no tokens is no bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mmkv.kernels.pack.form import Form
from mmkv.kernels.pack.naive import pack_bits
from mmkv.kernels.unpack_rotate.naive import unpack_bits

_CHANNELS = 32  # that share a scale
_NUMBER = 2  # bytes of a scale, and of a least value


def group_width(head_dim: int) -> int:
    """How many channels of a head share a scale."""
    return _CHANNELS if head_dim % _CHANNELS == 0 else head_dim


def block_bytes(form: Form, heads: int, tokens: int, head_dim: int) -> tuple[int, int]:
    """Bytes of a block's scales and least values together, and of its codes."""
    assert form.levels in (4, 16), "blocks begin at whole words"
    assert not form.wide
    assert form.transform == "none"
    numbers = 2 * _NUMBER * heads * tokens * (head_dim // group_width(head_dim))
    return numbers, sum(form.plane_bytes(heads, tokens, head_dim))


def pack_tokens(states: Tensor, lengths: Sequence[int], form: Form) -> Tensor:
    """Quantize the tokens of one page in several layers, from least to largest.

    Args:
        states: `[L, H, sum(lengths), D]`, finite, within float16's range.
        lengths: tokens of each of the page's blocks.
        form: 4 or 16 levels, no wide channels, no transform.

    Returns:
        uint8 `[L, B]`, the blocks of a layer one after another.
    """
    layers, heads, _, head_dim = states.shape
    x = states.float().unflatten(3, (-1, group_width(head_dim)))  # [L, H, N, groups, channels]
    # adding zero turns -0 into 0; torch takes either one for the smallest
    low, high = x.amin(dim=4) + 0.0, x.amax(dim=4)
    # by a tensor: to divide by a number, a GPU multiplies by its reciprocal and rounds differently
    scale = ((high - low) / torch.full_like(low, form.levels - 1)).half()
    low = low.half()
    inverse = torch.where(scale > 0, 1 / scale.float(), 0.0)
    codes = (x - low.float()[..., None]).mul_(inverse[..., None])
    codes = codes.round_().clamp_(0, form.levels - 1).to(torch.uint8).flatten(3)
    sizes = [sum(block_bytes(form, heads, length, head_dim)) for length in lengths]
    begins = torch.tensor(sizes, dtype=torch.long).cumsum(0) - torch.tensor(sizes)
    out = torch.empty(layers, sum(sizes), dtype=torch.uint8, device=states.device)
    for which, tokens in _alike(lengths):
        parts = [t[:, :, tokens].transpose(1, 2) for t in (scale, low, codes)]
        numbers = [p.contiguous().view(torch.uint8).flatten(2) for p in parts[:2]]
        planes = pack_bits(parts[2].flatten(0, 1), form).unflatten(0, (layers, -1))
        blocks = torch.cat([*numbers, planes], dim=2)  # [L, n, bytes]
        if len(which) == len(lengths):
            return blocks.flatten(1)
        places = begins[which][:, None] + torch.arange(blocks.shape[2])
        out[:, places.to(out.device)] = blocks
    return out


def unpack_tokens(
    data: Tensor, at: Tensor, lengths: Sequence[int], form: Form, out: Tensor
) -> Tensor:
    """Decode N blocks of one layer, of any pages, side by side.

    Args:
        data: uint8 `[B]`, bytes of many blocks.
        at: int64 `[N]`, where each of them begins.
        lengths: their numbers of tokens.
        out: `[H, sum(lengths), D]`, of the dtype that is wanted; filled.

    Returns:
        `out`.
    """
    heads, _, head_dim = out.shape
    width = group_width(head_dim)
    for which, tokens in _alike(lengths):
        begin, length = at[which], tokens.shape[1]
        size, _ = block_bytes(form, heads, length, head_dim)
        numbers = data[begin[:, None] + torch.arange(size, device=data.device)]
        numbers = numbers.view(torch.float16).float()
        scale, low = numbers.view(len(which), 2, heads, length, -1, 1).unbind(1)
        codes = unpack_bits(data, begin + size, length, heads, head_dim, form)
        states = (codes.unflatten(3, (-1, width)) * scale).add_(low).flatten(3)  # [n, H, T, D]
        states = states.transpose(0, 1)
        if len(which) == len(lengths):
            out.unflatten(1, (-1, length)).copy_(states)
        else:
            out[:, tokens.to(out.device)] = states.to(out.dtype)
    return out


def _alike(lengths: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
    """Blocks of one length, mostly all of them at once, and their tokens int64 `[n, T]`."""
    for length in sorted(set(lengths) - {0}):
        which = [i for i, other in enumerate(lengths) if other == length]
        first = torch.tensor(lengths).cumsum(0)[which] - length
        yield which, first[:, None] + torch.arange(length)
