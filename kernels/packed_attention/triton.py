"""Attention over packed history on a GPU: nothing is unpacked, codes are multiplied as they lie.

Three launches: fold the query into every group; per key head and split of the tokens multiply,
with tokens and channels on the matrix unit's long side and the head's queries on its short one;
join the splits by their log-sum-exp.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmkv.kernels import configs
from mmkv.kernels.packed_attention.fold import Queries, affine, fold
from mmkv.kernels.packed_attention.history import PackedHistory
from mmkv.kernels.packed_attention.naive import slot_bits
from mmkv.kernels.packed_attention.planes import high_byte, plane

_LOG2_E = 1.4426950408889634
_UP = tl.constexpr(32768.0)  # weights are scaled up in fp16, codes are 2^-24 of themselves
_FOLDED = 1 << 28  # bytes of folded queries held at once
_DOWN = tl.constexpr(2.0**24 / 32768.0)


def supports(history: PackedHistory) -> bool:
    """Whether these kernels take a history; the naive ones take any.

    Head sizes that are powers of two and leave the transform 16 channels or more, but no more than
    there is shared memory for, and values without wide channels (1.5 bits), whose sums every group
    would have to turn back on its own.
    """
    dim, form = history.values.shape[2], history.key_form
    narrow = dim - form.wide
    sizes = all(n & (n - 1) == 0 for n in (dim, form.wide, narrow)) and 16 <= dim <= 256
    most = configs.most_turned(configs.capability(history.keys.device))
    turned = form.transform == "none" or 16 <= narrow <= most
    values = history.value_form
    return sizes and turned and values.wide == 0 and values.matrix(dim, history.keys.device) is None


def packed_attention(
    query: Tensor,
    history: PackedHistory,
    visible: Tensor,
    scaling: float,
    rotation: tuple[Tensor, Tensor] | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
    *,
    asm: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """As `naive.packed_attention`.

    Args:
        asm: use inline assembly for the planes (default: where the kernels run on a GPU).
    """
    _, heads, n, dim = query.shape
    kv_heads = history.keys.shape[1]
    grouped = query.reshape(kv_heads, -1, dim)  # [H_kv, G * n, D]
    rows = grouped.shape[1]
    out = grouped.new_empty((kv_heads, rows, dim), dtype=torch.float32)
    lse = grouped.new_empty((kv_heads, rows), dtype=torch.float32)
    if not len(history.keys):  # nothing to launch over
        nothing = (out.zero_(), lse.fill_(float("-inf")))
        return beside or (nothing[0].view(1, heads, n, dim), nothing[1].view(1, heads, n))
    if beside is not None:
        other, other_lse = (t.reshape(kv_heads, rows, *t.shape[3:]) for t in beside)
    use_asm = query.is_cuda if asm is None else asm
    held = len(history.keys) * kv_heads * dim * 2  # bytes of a folded row
    most = max(16, _FOLDED // held // 16 * 16)
    for at in range(0, rows, most):
        part = slice(at, at + most)
        _attend(
            Queries(grouped[:, part].contiguous(), rotation, at, n), history, visible, scaling,
            use_asm, out[:, part], lse[:, part],
            None if beside is None else (other[:, part], other_lse[:, part]),
        )  # fmt: skip
    return out.view(1, heads, n, dim), lse.view(1, heads, n)


def _attend(
    queries: Queries, history: PackedHistory, visible: Tensor, scaling: float, asm: bool,
    out: Tensor, lse: Tensor, beside: tuple[Tensor, Tensor] | None,
) -> None:  # fmt: skip
    query = queries.states
    groups, kv_heads, tokens, _ = history.keys.shape
    count, dim = query.shape[1:]
    rows = 8 if count <= 8 else 16
    blocks = triton.cdiv(count, rows)
    keys, values = history.key_params, history.value_params
    folded, line = fold(queries, keys, history.key_form, rows, scaling * _LOG2_E)
    key_bits, value_bits = slot_bits(history.key_form), slot_bits(history.value_form)
    row_words = tokens * value_bits // 16
    tiles = configs.packed_tiles(configs.capability(query.device), rows, row_words)
    pieces = triton.cdiv(row_words, tiles.rows)
    splits = configs.splits(query.device, kv_heads * blocks, groups * pieces)
    per = triton.cdiv(groups * pieces, splits)
    parts = out.new_empty((blocks, splits, kv_heads, dim, rows))
    sums = out.new_empty((blocks, splits, kv_heads, rows))
    _packed_attention[(splits, kv_heads, blocks)](
        folded, line, history.keys.view(torch.int16), history.values.view(torch.int16),
        values.words, values.top, values.top if values.exact is None else values.exact,
        visible, parts, sums, groups, per,
        HEADS=kv_heads, T=tokens, D=dim, ROWS=rows, KEY_BITS=key_bits, VALUE_BITS=value_bits,
        HALF=(history.value_form.levels - 1) / 2, LISTED=values.exact is not None,
        WORDS=tiles.rows, PIECES=pieces, KEY_WORDS=max(16, dim * key_bits // 16), ASM=asm,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    other, other_lse = (out, lse) if beside is None else beside
    _join[(kv_heads, count)](
        parts, sums, out, lse, other, other_lse, splits, out.stride(0), out.stride(1),
        lse.stride(0), other.stride(0), other.stride(1), other_lse.stride(0),
        HEADS=kv_heads, D=dim, ROWS=rows, BESIDE=beside is not None,
        BLOCK=triton.next_power_of_2(splits), num_warps=4,
    )  # fmt: skip


@triton.jit
def _scores(
    keys, q, line, word, token, ROW_WORDS: tl.constexpr, WORDS: tl.constexpr,
    D: tl.constexpr, ROWS: tl.constexpr, BITS: tl.constexpr, KEY_WORDS: tl.constexpr,
    ASM: tl.constexpr,
):  # fmt: skip
    """Scores `[WORDS, ROWS]` of the tokens that stand in one plane of the values' words."""
    W: tl.constexpr = D * BITS // 16
    SLOTS: tl.constexpr = 8 // BITS
    column = tl.arange(0, KEY_WORDS)
    row = tl.arange(0, ROWS)
    at = keys + token[:, None] * W + column[None, :]
    inside = column < W
    if ROW_WORDS % WORDS != 0 or KEY_WORDS != W:
        there = (word < ROW_WORDS)[:, None] & inside[None, :]
        low = tl.load(at, mask=there, other=0)
    else:
        low = tl.load(at)
    high = high_byte(low, ASM)
    scores = tl.zeros([WORDS, ROWS], tl.float32)
    factors = q + column[:, None] * ROWS + row[None, :]
    for j in tl.static_range(SLOTS):
        if KEY_WORDS != W:
            f = tl.load(factors + j * W * ROWS, mask=inside[:, None], other=0.0)
        else:
            f = tl.load(factors + j * W * ROWS)
        scores = tl.dot(plane(low, j, BITS, ASM), f, scores)
    for j in tl.static_range(SLOTS):
        if KEY_WORDS != W:
            f = tl.load(factors + (SLOTS + j) * W * ROWS, mask=inside[:, None], other=0.0)
        else:
            f = tl.load(factors + (SLOTS + j) * W * ROWS)
        scores = tl.dot(plane(high, j, BITS, ASM), f, scores)
    return scores * tl.load(line + row)[None, :] + tl.load(line + ROWS + row)[None, :]


@triton.jit
def _packed_attention(
    folded, line, keys, values, words, top, exact, visible, parts, sums, groups, per,
    HEADS: tl.constexpr, T: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    KEY_BITS: tl.constexpr, VALUE_BITS: tl.constexpr, HALF: tl.constexpr, LISTED: tl.constexpr,
    WORDS: tl.constexpr, PIECES: tl.constexpr, KEY_WORDS: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    SLOTS: tl.constexpr = 8 // VALUE_BITS
    ROW_WORDS: tl.constexpr = T * VALUE_BITS // 16
    split, kv, block = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    folded += block * groups * HEADS * D * ROWS
    line += block * groups * HEADS * 2 * ROWS
    rows, channels = tl.arange(0, ROWS), tl.arange(0, D)
    best = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([D, ROWS], tl.float32)
    first = split * per
    for tile in range(first, tl.minimum(first + per, groups * PIECES)):
        group = tile // PIECES
        row = (group * HEADS + kv).to(tl.int64)
        word = tile % PIECES * WORDS + tl.arange(0, WORDS)
        begin, end = tl.load(visible + 2 * group), tl.load(visible + 2 * group + 1)
        own_keys = keys + row * (T * D * KEY_BITS // 16)
        q, own_line = folded + row * D * ROWS, line + row * 2 * ROWS
        scores = ()
        peak = tl.full([WORDS, ROWS], float("-inf"), tl.float32)
        for i in tl.static_range(2 * SLOTS):
            token = (i % SLOTS) * 2 * ROW_WORDS + i // SLOTS + 2 * word
            s = _scores(
                own_keys, q, own_line, word, token, ROW_WORDS, WORDS, D, ROWS, KEY_BITS,
                KEY_WORDS, ASM,
            )  # fmt: skip
            if (begin > 0) | (end < T) | (ROW_WORDS % WORDS != 0):
                seen = (token >= begin) & (token < end) & (word < ROW_WORDS)
                s = tl.where(seen[:, None], s, float("-inf"))
            scores = scores + (s,)  # type: ignore[assignment]  # noqa: RUF005
            peak = tl.maximum(peak, s)
        higher = tl.maximum(best, tl.max(peak, 0))
        keep = tl.exp2(best - higher)
        at = values + (row * D + channels)[:, None] * ROW_WORDS + word[None, :]
        if ROW_WORDS % WORDS != 0:
            low = tl.load(at, mask=(word < ROW_WORDS)[None, :], other=0)
        else:
            low = tl.load(at)
        high = high_byte(low, ASM)
        mixed = tl.zeros([D, ROWS], tl.float32)
        mass = tl.zeros([WORDS, ROWS], tl.float32)
        for i in tl.static_range(2 * SLOTS):
            weights = tl.exp2(scores[i] - higher[None, :])
            mass += weights
            scaled = (weights * (_UP / (1 << (VALUE_BITS * (i % SLOTS))))).to(tl.float16)
            if i < SLOTS:
                mixed = tl.dot(plane(low, i % SLOTS, VALUE_BITS, ASM), scaled, mixed)
            else:
                mixed = tl.dot(plane(high, i % SLOTS, VALUE_BITS, ASM), scaled, mixed)
        summed = tl.sum(mass, 0)
        scale, centre, constant = affine(words, top, exact, row, channels, D, LISTED)
        scale = tl.where(constant, 0.0, scale)
        shift = centre - HALF * scale
        acc = acc * keep[None, :] + mixed * (scale * _DOWN)[:, None] + shift[:, None] * summed
        total = total * keep + summed
        best = higher
    at = (block * tl.num_programs(0) + split) * HEADS + kv
    empty = total == 0
    # a split that saw nothing weighs nothing
    out = tl.where(empty[None, :], 0.0, acc / tl.where(empty, 1.0, total)[None, :])
    tl.store(parts + at * D * ROWS + channels[:, None] * ROWS + rows[None, :], out)
    tl.store(sums + at * ROWS + rows, tl.where(empty, float("-inf"), best + tl.log2(total)))


@triton.jit
def _join(
    parts, sums, out, lse, other, other_lse, splits, out_head, out_row, lse_head,
    other_head, other_row, other_lse_head, HEADS: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, BESIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kv, row = tl.program_id(0), tl.program_id(1)
    sums += row // ROWS * splits * HEADS * ROWS + row % ROWS
    parts += (row // ROWS).to(tl.int64) * splits * HEADS * D * ROWS + row % ROWS
    split, channels = tl.arange(0, BLOCK), tl.arange(0, D)
    own = tl.load(sums + (split * HEADS + kv) * ROWS, mask=split < splits, other=float("-inf"))
    best = tl.maximum(tl.max(own, 0), -1e30)
    acc = tl.zeros([D], tl.float32)
    if BESIDE:
        beside = tl.load(other_lse + kv * other_lse_head + row) / 0.6931471805599453
        best = tl.maximum(best, beside)
        weight = tl.exp2(beside - best)
        acc = weight * tl.load(other + kv * other_head + row * other_row + channels)
    total = tl.sum(tl.exp2(own - best), 0)
    if BESIDE:
        total += weight
    for i in range(splits):
        weight = tl.exp2(tl.load(sums + (i * HEADS + kv) * ROWS) - best)
        at = (i * HEADS + kv).to(tl.int64) * D * ROWS
        acc += weight * tl.load(parts + at + channels * ROWS)
    some = total > 0
    acc = tl.where(some, acc / tl.where(some, total, 1.0), 0.0)
    tl.store(out + kv * out_head + row * out_row + channels, acc)
    natural = (best + tl.log2(total)) * 0.6931471805599453
    tl.store(lse + kv * lse_head + row, tl.where(some, natural, float("-inf")))
