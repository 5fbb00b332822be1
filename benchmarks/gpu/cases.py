"""Inputs that correctness and speed share."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu.setup import Sizes
from mmkv.kernels.pack.form import FINEST, ZERO, Form, Params
from mmkv.kernels.pack.naive import code_groups
from mmkv.kernels.packed_attention import (
    PackedHistory,
    compact,
    resident_keys,
    resident_values,
    slot_bits,
)
from mmkv.kernels.window_attention.naive import Chunk


def forms(sizes: Sizes) -> dict[str, tuple[Form, Form]]:
    """Key and value forms by name."""
    narrow = Form(2, sizes.dim // 2, "hadamard")
    return {"K2 V2": (Form(4), Form(4)), "K1.5 V1.58": (narrow, Form(3)), "K4 V4": (Form(16),) * 2}


def params(sizes: Sizes, groups: int, form: Form) -> Params:
    """Random scales and centres, words that need no list."""
    shape = (groups, sizes.kv_heads, sizes.dim)
    where = {"device": sizes.device}
    scale = torch.randint(FINEST - 12, FINEST + 1, shape, **where)
    centre = torch.randint(ZERO - 20, ZERO + 20, shape, **where)
    top = torch.rand(groups, sizes.kv_heads, **where) + 0.5
    wide = torch.zeros(shape, dtype=torch.bool, **where)
    if form.wide:
        chosen = torch.rand(shape, **where).topk(form.wide, dim=2).indices
        wide.scatter_(2, chosen, True)
    words = (centre << 6 | scale).to(torch.int32)
    return Params(words, top, wide, torch.zeros(0, **where))


def history(sizes: Sizes, tokens: int, key_form: Form, value_form: Form) -> PackedHistory:
    """Random codes of `tokens` tokens, rounded up to whole groups."""
    groups = -(-tokens // sizes.group)

    def codes(form: Form, rows: int, length: int) -> Tensor:
        bits = slot_bits(form)
        shape = (groups, sizes.kv_heads, rows, length * bits // 8)
        out = torch.randint(0, 256, shape, dtype=torch.uint8, device=sizes.device)
        if form.levels == 3:  # no code of 3
            both = out & (out >> 1) & 0x55
            out -= both
        return out

    return PackedHistory(
        codes(key_form, sizes.group, sizes.dim), codes(value_form, sizes.dim, sizes.group),
        compact(params(sizes, groups, key_form), key_form),
        compact(params(sizes, groups, value_form), value_form), key_form, value_form,
    )  # fmt: skip


def packed(sizes: Sizes, groups: int, key_form: Form, value_form: Form) -> PackedHistory:
    """Groups of packed random numbers, with channels that are constant, or far from zero."""
    key, value = (sizes.random(groups, sizes.kv_heads, sizes.group, sizes.dim) for _ in "kv")
    key[..., 3] += 150.0
    key[..., 5] = value[..., 7] = 2.0
    key_fit, keys = code_groups(key, key_form)
    value_fit, values = code_groups(value, value_form)
    return PackedHistory(
        resident_keys(keys, key_form), resident_values(values, value_form),
        compact(key_fit.params, key_form), compact(value_fit.params, value_form),
        key_form, value_form,
    )  # fmt: skip


def elsewhere(sizes: Sizes, n: int) -> tuple[Tensor, Tensor]:
    """Attention of n queries over other tokens, to be joined."""
    out = sizes.random(1, sizes.heads, n, sizes.dim, dtype=torch.float32)
    return out, sizes.random(1, sizes.heads, n, dtype=torch.float32) + 2


def doubled(pair: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    """A pair in float64."""
    return None if pair is None else (pair[0].double(), pair[1].double())


def visible(sizes: Sizes, held: PackedHistory) -> Tensor:
    """A history's tokens, all of them visible."""
    every = torch.tensor([0, sizes.group], dtype=torch.int32, device=sizes.device)
    return every.repeat(len(held.keys), 1)


def angles(sizes: Sizes, n: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[n, D]`."""
    half = torch.rand(n, sizes.dim // 2, device=sizes.device) * 6
    both = torch.cat([half, half], dim=-1)
    return both.cos(), both.sin()


def window(sizes: Sizes) -> tuple[Tensor, Tensor, Tensor, Chunk, tuple[Tensor, Tensor]]:
    """A chunk in the middle of a stream: query, ring, where it stands, sinks."""
    n, capacity = sizes.chunk, sizes.local + sizes.chunk
    query = sizes.random(1, n, sizes.heads, sizes.dim).transpose(1, 2)
    key, value = (sizes.random(1, sizes.kv_heads, capacity, sizes.dim) for _ in range(2))
    sinks = tuple(sizes.random(1, sizes.kv_heads, 14, sizes.dim) for _ in range(2))
    chunk = Chunk(3 * capacity, n, sizes.local, capacity, angles(sizes, n), angles(sizes, n), 14)
    return query, key, value, chunk, (sinks[0], sinks[1])
