"""New tokens into a ring or a buffer on a GPU: read once, written once, in one launch."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels.common.triton import rotated

_TILE = 16  # tokens in a program


def rotate_write(
    key: Tensor,
    value: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    into_key: Tensor,
    into_value: Tensor,
    at: int | Tensor,
    tokens: Tensor | None = None,
) -> None:
    """As `naive.rotate_write`."""
    _, heads, n, dim = key.shape
    if tokens is not None:
        n, tokens = tokens.shape[1], tokens.contiguous()
    if not n:
        return
    key, value = (t if t.stride(3) == 1 else t.contiguous() for t in (key, value))
    assert into_key.stride(3) == into_value.stride(3) == 1
    cos, sin = rotation if rotation is not None else (key[0, 0], key[0, 0])
    _rotate_write[(triton.cdiv(n, _TILE), heads)](
        key, value, key if tokens is None else tokens, cos, sin, into_key, into_value, at, n,
        into_key.shape[2],
        key.stride(1), key.stride(2), value.stride(1), value.stride(2),
        into_key.stride(1), into_key.stride(2), into_value.stride(1), into_value.stride(2),
        D=dim, ROTARY=0 if rotation is None else cos.shape[-1], EACH=cos.ndim == 3,
        FROM_MEMORY=isinstance(at, Tensor), PICKED=tokens is not None,
        TILE=_TILE, BLOCK_D=triton.next_power_of_2(dim), num_warps=4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["at", "n"])
def _rotate_write(
    key, value, tokens, cos, sin, into_key, into_value, at, n, slots,
    k_head, k_row, v_head, v_row, ik_head, ik_row, iv_head, iv_row,
    D: tl.constexpr, ROTARY: tl.constexpr, EACH: tl.constexpr, FROM_MEMORY: tl.constexpr,
    PICKED: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    cols = tl.arange(0, BLOCK_D)
    there = rows < n
    inside = there[:, None] & (cols < D)[None, :]
    first = at
    if FROM_MEMORY:
        first = tl.load(at)
    slot = (first.to(tl.int64) + rows) % slots
    far = rows.to(tl.int64)
    angles = far
    if EACH:
        angles = head * n + far
    if PICKED:
        far = tl.load(tokens + head * n + far, mask=there, other=0)
    turned = rotated(key + head * k_head, far * k_row, angles, there, cols, cos, sin, D, ROTARY)
    spot = into_key + head * ik_head + slot[:, None] * ik_row + cols[None, :]
    tl.store(spot, turned.to(into_key.dtype.element_ty), mask=inside)
    v = tl.load(
        value + head * v_head + far[:, None] * v_row + cols[None, :], mask=inside, other=0.0
    )
    spot = into_value + head * iv_head + slot[:, None] * iv_row + cols[None, :]
    tl.store(spot, v.to(into_value.dtype.element_ty), mask=inside)
