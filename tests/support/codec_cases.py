"""What the tests of codecs share: shapes, pages, relative errors, and a decoder in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkv.codecs import Codec, PackedLayer, Part, make_codec
from mmkv.codecs import registry as codec_registry
from mmkv.kernels.pack import Form
from mmkv.models.layers import Shape

PACKED = list(codec_registry.PACKED)
CPU = torch.device("cpu")


def shape_of(head_dim: int = 64, kv_heads: int = 2, layers: int = 3) -> Shape:
    return Shape(layers, 4 * kv_heads, kv_heads, head_dim)


def codec_of(name: str | None, shape: Shape, **settings: Any) -> Codec:
    return make_codec(name, shape, **settings)


def states(kind: str, *size: int, seed: int = 0) -> Tensor:
    """Float32 test data; "biased" has a mean of its own, twice as wide, in every channel."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(size, generator=generator)
    if kind == "laplace":
        uniform = torch.rand(size, generator=generator).clamp_(1e-7, 1 - 1e-7) - 0.5
        return -uniform.sign() * (1 - 2 * uniform.abs()).log()
    if kind == "biased":
        return normal + 2 * torch.randn(*size[:-2], 1, size[-1], generator=generator)
    assert kind == "gaussian"
    return normal


def encode(codec: Codec, key: Tensor, value: Tensor, lengths: Sequence[int], layer: int = 0) -> Any:
    return codec.encode(key, value, lengths, layer)


def decode(
    codec: Codec, packed: PackedLayer, lengths: Sequence[int], shape: Shape, layer: int = 0
) -> Tensor:
    """All of a page, float32."""
    part = Part(packed.shared, packed.blocks, lengths)
    return codec.decode([part], layer, shape, CPU, torch.float32)


def round_trip(codec: Codec, kv: Tensor, shape: Shape, page: int, block: int = 16) -> Tensor:
    """`[2, H, T, D]` through pages of `page` tokens in blocks of `block`."""
    pieces = []
    for part in kv.split(page, dim=2):
        lengths = [len(b) for b in torch.arange(part.shape[2]).split(block)]
        packed = codec.encode(part[0], part[1], lengths, 0)
        pieces.append(decode(codec, packed, lengths, shape))
    return torch.cat(pieces, dim=2)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Squared error over squared size."""
    return float((found - wanted).double().square().sum() / wanted.double().square().sum())


def slow_decode(
    shared: np.ndarray, block: np.ndarray, heads: int, tokens: int, head_dim: int, form: Form
) -> tuple[np.ndarray, int, int]:
    """Float64 `[H, T, D]` of a block whose page is one group, from the layout's description.

    Returns:
        the numbers, and how many bytes of `shared` and of `block` they took.
    """
    top = shared[: 4 * heads].copy().view("<f4").astype(float)
    at = 4 * heads
    wide = np.zeros((heads, head_dim), dtype=bool)
    if form.wide:
        size = heads * head_dim // 8
        wide = np.unpackbits(shared[at : at + size]).astype(bool).reshape(heads, head_dim)
        at += size
    size = 2 * heads * head_dim
    words = shared[at : at + size].copy().view("<u2").reshape(heads, head_dim)
    at += size
    centre = np.zeros((heads, head_dim))
    scale = np.zeros((heads, head_dim))
    constant = np.zeros((heads, head_dim), dtype=bool)
    for h in range(heads):
        for d in range(head_dim):
            low, high = int(words[h, d]) & 63, int(words[h, d]) >> 6
            scale[h, d] = top[h] * 2 ** ((low - 63) / 6) if low else 0.0
            centre[h, d] = (high - 512) * scale[h, d] / 8
            if high < 2:
                centre[h, d] = shared[at : at + 4].copy().view("<f4")[0]
                constant[h, d] = high == 1
                at += 4
    planes, used = _planes(block, heads, tokens, head_dim, form)
    matrix = form.matrix(head_dim, CPU)
    out = np.zeros((heads, tokens, head_dim))
    for h in range(heads):
        order = [d for d in range(head_dim) if wide[h, d]]
        order += [d for d in range(head_dim) if not wide[h, d]]
        for t in range(tokens):
            slots = np.zeros(head_dim)
            for i, d in enumerate(order):
                levels = 4 if i < form.wide else form.levels
                slots[i] = scale[h, d] * (planes[h][t][i] - (levels - 1) / 2)
            if matrix is not None:
                slots[form.wide :] = matrix.double().numpy() @ slots[form.wide :]
            for i, d in enumerate(order):
                out[h, t, d] = centre[h, d] + (0.0 if constant[h, d] else slots[i])
    return out, at, used


def _planes(
    block: np.ndarray, heads: int, tokens: int, head_dim: int, form: Form
) -> tuple[list[list[list[int]]], int]:
    codes = [[[0] * head_dim for _ in range(tokens)] for _ in range(heads)]
    at = 0
    for first, width, levels in (
        (0, form.wide, 4),
        (form.wide, head_dim - form.wide, form.levels),
    ):
        if not width:
            continue
        count = heads * tokens * width
        bits = {2: 1, 3: 0, 4: 2, 16: 4}[levels]
        row = width * bits // 8
        size = -(-count // 5) if levels == 3 else count * bits // 8
        for e in range(count):
            h, t, i = e // width // tokens, e // width % tokens, e % width
            if levels == 3:
                code = int(block[at + e % size]) // 3 ** (e // size) % 3
            else:
                byte = int(block[at + (h * tokens + t) * row + i % row])
                code = byte >> bits * (i // row) & (levels - 1)
            codes[h][t][first + i] = code
        at += size
    return codes, at
