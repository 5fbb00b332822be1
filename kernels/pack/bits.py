"""Codes to bytes on a GPU: every byte gathers its own codes, wherever they lie."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels.pack.form import WIDE_LEVELS, Form


def pack_bits(codes: Tensor, form: Form) -> Tensor:
    """As `naive.pack_bits`, bit for bit."""
    blocks, heads, tokens, dim = codes.shape
    if codes.stride(3) != 1:
        codes = codes.contiguous()
    sizes = form.plane_bytes(heads, tokens, dim)
    out = torch.empty(blocks, sum(sizes), dtype=torch.uint8, device=codes.device)
    for start, width, levels, at, size in (
        (0, form.wide, WIDE_LEVELS, 0, sizes[0]),
        (form.wide, dim - form.wide, form.levels, sizes[0], sizes[1]),
    ):
        if size:
            bits = {2: 1, 3: 0, 4: 2, 16: 4}[levels]
            _pack_bits[(triton.cdiv(size, 1024), blocks)](
                codes, out, size, at, sum(sizes), tokens, heads * tokens * width, start,
                *codes.stride()[:3], WIDTH=width, LEVELS=levels,
                BYTES=width * bits // 8, COUNT=8 // bits if bits else 5, BLOCK=1024, num_warps=4,
            )  # fmt: skip
    return out


@triton.jit
def _pack_bits(
    codes, out, size, begin, row_bytes, tokens, elements, start, s_block, s_head, s_token,
    WIDTH: tl.constexpr, LEVELS: tl.constexpr, BYTES: tl.constexpr, COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    byte = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    block = tl.program_id(1).to(tl.int64)
    packed = tl.zeros([BLOCK], tl.int32)
    power = 1
    for j in tl.static_range(COUNT):
        if LEVELS == 3:
            element = j * size + byte
        else:
            element = byte // BYTES * WIDTH + j * BYTES + byte % BYTES
        row = element // WIDTH  # head and token
        at = row // tokens * s_head + row % tokens * s_token + start + element % WIDTH
        here = (byte < size) & (element < elements)
        code = tl.load(codes + block * s_block + at, mask=here, other=0).to(tl.int32)
        packed += code * power
        power *= LEVELS
    tl.store(out + block * row_bytes + begin + byte, packed.to(tl.uint8), mask=byte < size)
