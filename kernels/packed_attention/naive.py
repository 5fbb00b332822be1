"""Attention over packed history in torch: the executable specification.

Keys stay packed and unrotated; the query was rotated to one fixed distance from all of them. With
k = centre + scale * (code - half) per group of tokens and channel, scale, centre and transform are
folded into the query once per group, and only small integers are multiplied per token
(algorithms: KIVI, arXiv 2402.02750; transforms: q.k = (qM).(kM) for an orthonormal M).

Layout of a group of T tokens, T a multiple of 16; `bits` is 4 for 16 levels, otherwise 2
    keys    `[H_kv, T, D * bits / 8]`, byte b of a row, slot j of 8 / bits, bits from the low end
            <-> channel slot j * (D * bits / 8) + b, as in `kernels/pack/form.py`.
    values  `[H_kv, D, T * bits / 8]`, byte b of a row, slot j <-> token j * (T * bits / 8) + b:
            both are rows along what their product sums over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmkv.kernels.joined import LOWEST, join
from mmkv.kernels.pack.form import WIDE_LEVELS, Form, Params, Tables, tables, transformed
from mmkv.rotary import rotate

# numbers of a group unpacked at a time, over all groups at hand
_MAX_NUMBERS = 1 << 23


@dataclass(frozen=True, slots=True)
class Compact:
    """Parameters of P groups as Triton kernels read them.

    words: int16 `[P, H, D]`. top: float32 `[P, H]`. order: int16 `[P, H, D]`, slot to channel, None
    where they are the same. exact: float32 `[P, H, D]`, centres, None where words tell them all.
    """

    words: Tensor
    top: Tensor
    order: Tensor | None
    exact: Tensor | None


@dataclass(frozen=True)
class PackedHistory:
    """P groups of one layer's tokens on one device.

    keys: uint8 `[P, H_kv, T, D * bits / 8]`. values: uint8 `[P, H_kv, D, T * bits / 8]`.
    key_params, value_params: of P groups. key_form, value_form: how they were coded.
    """

    keys: Tensor
    values: Tensor
    key_params: Params
    value_params: Params
    key_form: Form
    value_form: Form

    @cached_property
    def compact(self) -> tuple[Compact, Compact]:
        """The keys' and values' parameters for Triton, made once."""
        pairs = ((self.key_params, self.key_form), (self.value_params, self.value_form))
        return _compact(*pairs[0]), _compact(*pairs[1])

    @property
    def nbytes(self) -> int:
        """Bytes of codes and parameters."""
        held = [self.keys, self.values]
        for params in (self.key_params, self.value_params):
            held += [params.words, params.top, params.wide, params.listed]
        return sum(tensor.nbytes for tensor in held)


def slot_bits(form: Form) -> int:
    """Bits that a resident code takes: 1-bit and ternary ones are widened to 2."""
    return 4 if form.levels == 16 else 2


def resident_keys(codes: Tensor, form: Form) -> Tensor:
    """Codes uint8 `[P, H, T, D]` by slot as resident keys."""
    bits = slot_bits(form)
    parts = codes.unflatten(3, (8 // bits, -1))  # [P, H, T, slots, bytes]
    return (parts << _shifts(bits, codes)[:, None]).sum(3, dtype=torch.uint8)


def resident_values(codes: Tensor, form: Form) -> Tensor:
    """Codes uint8 `[P, H, T, D]` by slot as resident values."""
    return resident_keys(codes.transpose(2, 3), form)


def packed_attention(
    query: Tensor,
    history: PackedHistory,
    begin: Tensor,
    end: Tensor,
    scaling: float,
    rotation: tuple[Tensor, Tensor] | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of a few queries over all visible tokens of a packed history.

    Args:
        query: `[1, H, n, D]`.
        begin, end: int32 `[P]`; a group's tokens begin…end-1 are visible.
        rotation: of the queries to the fixed distance, `[n, R]`; None where they are rotated.
        beside: what this, or `buffer_attention_lse`, returned for the same queries over other
            tokens; joined in here.

    Returns:
        out float32 `[1, H, n, D]`, and the log-sum-exp of the scores, float32 `[1, H, n]`; where
        nothing is visible, zeros and minus infinity.
    """
    if rotation is not None:
        query = rotate(query, rotation)
    _, heads, n, head_dim = query.shape
    groups, kv_heads, tokens, _ = history.keys.shape
    q = query.float().reshape(kv_heads, -1, head_dim) * scaling  # [H_kv, G * n, D]
    lse = q.new_full(q.shape[:2], float("-inf"))
    out = torch.zeros_like(q)
    tile = max(1, _MAX_NUMBERS // (kv_heads * tokens * head_dim))
    at = torch.arange(tokens, device=query.device)
    keys, values = tables(history.key_params), tables(history.value_params)
    for first in range(0, groups, tile):
        part = slice(first, first + tile)
        visible = (at >= begin[part, None]) & (at < end[part, None])  # [P, T]
        if _nothing(visible):
            continue
        folded, offset = fold_query(q, _of(keys, part), history.key_form)
        codes = _unpack(history.keys[part], history.key_form)
        scores = torch.matmul(folded, codes.transpose(2, 3)) + offset[..., None]
        scores = scores.masked_fill(~visible[:, None, None], float("-inf"))  # [P, H_kv, G * n, T]
        own = scores.permute(1, 2, 0, 3).flatten(2).logsumexp(dim=-1)  # [H_kv, G * n]
        weights = (scores - own.clamp_min(LOWEST)[..., None]).exp()
        codes = _unpack(history.values[part], history.value_form).transpose(2, 3)
        mixed = _mix(weights, codes, _of(values, part), history.value_form)
        both = torch.logaddexp(lse, own)
        least = both.clamp_min(LOWEST)
        out = out * (lse - least).exp()[..., None] + mixed * (own - least).exp()[..., None]
        lse = both
    found = out.view(1, heads, n, head_dim), lse.view(1, heads, n)
    return found if beside is None else join(*beside, *found)


def fold_query(q: Tensor, table: Tables, form: Form) -> tuple[Tensor, Tensor]:
    """Queries `[H_kv, m, D]` as P groups' codes are multiplied by, `[P, H_kv, m, D]` by slot, and
    what is added to a group's scores, `[P, H_kv, m]`.
    """
    offset = torch.einsum("hmd,phd->phm", q, table.centre)
    slots = q.expand(len(table.scale), -1, -1, -1)
    if table.constant is not None:
        slots = slots.masked_fill(table.constant[:, :, None], 0.0)
    slots = slots.gather(3, table.order[:, :, None].expand_as(slots)) if form.wide else slots
    slots = transformed(slots, form.wide, form.matrix(q.shape[2], q.device))
    folded = slots * table.scale[:, :, None]
    return folded, offset - (folded * _half(form, q)).sum(dim=3)


def _nothing(visible: Tensor) -> bool:
    """Whether no token is, as far as the host can tell without waiting for a device."""
    return visible.device.type == "cpu" and not visible.any()


def _mix(weights: Tensor, codes: Tensor, table: Tables, form: Form) -> Tensor:
    """Values of P groups mixed by weights `[P, H_kv, m, T]`: `[H_kv, m, D]`."""
    total = weights.sum(dim=3, keepdim=True)
    slots = torch.matmul(weights, codes) - total * _half(form, weights, codes.shape[3])
    slots = slots * table.scale[:, :, None]
    matrix = form.matrix(codes.shape[3], codes.device)
    slots = transformed(slots, form.wide, None if matrix is None else matrix.T)
    if form.wide:
        slots = torch.empty_like(slots).scatter_(3, table.order[:, :, None].expand_as(slots), slots)
    if table.constant is not None:
        slots = slots.masked_fill(table.constant[:, :, None], 0.0)
    return (slots + total * table.centre[:, :, None]).sum(dim=0)


def _compact(params: Params, form: Form) -> Compact:
    table = tables(params)
    return Compact(
        params.words.to(torch.int16),  # keeps the low 16 bits
        params.top,
        table.order.to(torch.int16) if form.wide else None,
        table.centre if params.listed.numel() else None,
    )


def _unpack(packed: Tensor, form: Form) -> Tensor:
    """Float32 codes of bytes that are planar over the last dimension."""
    bits = slot_bits(form)
    shifts = _shifts(bits, packed)[:, None]
    return ((packed[..., None, :] >> shifts) & ((1 << bits) - 1)).flatten(-2).float()


def _shifts(bits: int, like: Tensor) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=like.device)


def _half(form: Form, like: Tensor, head_dim: int | None = None) -> Tensor:
    """(levels - 1) / 2 of every slot."""
    half = like.new_full((head_dim or like.shape[-1],), (form.levels - 1) / 2)
    half[: form.wide] = (WIDE_LEVELS - 1) / 2
    return half


def _of(table: Tables, part: slice) -> Tables:
    constant = None if table.constant is None else table.constant[part]
    return Tables(table.scale[part], table.centre[part], table.order[part], constant)
