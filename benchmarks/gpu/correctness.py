"""Every Triton kernel against its torch version, on the device at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.gpu import cases
from benchmarks.gpu.report import Row, Step, check
from benchmarks.gpu.setup import Sizes, rmse_ratio
from mmkv.kernels.attention_mass import naive as mass_naive
from mmkv.kernels.buffer_attention import naive as buffer_naive
from mmkv.kernels.farthest import naive as farthest_naive
from mmkv.kernels.merge import naive as merge_naive
from mmkv.kernels.pack import naive as pack_naive
from mmkv.kernels.pack.form import Form, slot_order
from mmkv.kernels.packed_attention import naive as packed_naive
from mmkv.kernels.rotate_write import naive as write_naive
from mmkv.kernels.score import naive as score_naive
from mmkv.kernels.summarize import naive as summarize_naive
from mmkv.kernels.token_pack import naive as token_naive
from mmkv.kernels.unpack_rotate import naive as unpack_naive
from mmkv.kernels.widen import naive as widen_naive
from mmkv.kernels.window_attention import naive as window_naive

HALF, BRAIN = 2e-3, 8e-3  # root mean square error over signal, by dtype


def subnormals(sizes: Sizes) -> Iterator[Row]:
    """Whether the matrix unit takes the smallest fp16 numbers, as `packed_attention` needs."""
    from benchmarks.gpu.subnormal import products

    got = products(sizes.device)
    wanted = torch.arange(256, device=sizes.device).view(16, 16).double() * 2.0**-24
    unequal = float((got.double() != wanted).sum())
    yield check("subnormal fp16 numbers in the matrix unit", unequal, 0, "numbers differ")


def window(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.window_attention import triton

    small = replace(sizes, chunk=min(sizes.chunk, 200), local=min(sizes.local, 900))
    query, key, value, chunk, sinks = cases.window(small)
    got = triton.window_attention(query, key, value, chunk, sinks, sizes.dim**-0.5)
    exact = replace(chunk, near=_double(chunk.near), far=_double(chunk.far))
    doubles = [t.double() for t in (query, key, value)]
    want = window_naive.window_attention(*doubles, exact, _double(sinks), sizes.dim**-0.5)
    yield check(f"window_attention {sizes.dtype}", rmse_ratio(got, want), bar(sizes))


def writing(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.rotate_write import triton

    n, slots = 60, 100
    key, value = (sizes.random(1, n, sizes.kv_heads, sizes.dim).transpose(1, 2) for _ in "kv")
    turn = cases.angles(sizes, n)
    for name, at in (("a ring", 70), ("a buffer", torch.tensor(30, device=sizes.device))):
        got = [key.new_zeros(1, sizes.kv_heads, slots, sizes.dim) for _ in "kv"]
        want = [held.double() for held in got]
        triton.rotate_write(key, value, turn, *got, at)
        write_naive.rotate_write(key.double(), value.double(), _double(turn), *want, at)
        yield check(f"rotate_write into {name}, keys", rmse_ratio(got[0], want[0]), bar(sizes))
        unequal = float((got[1].double() != want[1]).sum())
        yield check(f"rotate_write into {name}, values", unequal, 0, "numbers differ")
    tokens = torch.rand(sizes.kv_heads, n, device=sizes.device).argsort(dim=1)[:, : n // 2]
    picked = [held.new_empty(1, sizes.kv_heads, n // 2, sizes.dim) for held in (key, value)]
    triton.rotate_write(key, value, None, *picked, 0, tokens)
    place = tokens[None, :, :, None].expand_as(picked[0])
    unequal = sum(
        float((p != held.gather(2, place)).sum())
        for p, held in zip(picked, (key, value), strict=True)
    )
    yield check("rotate_write of tokens picked per head", unequal, 0, "numbers differ")


def buffers(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.buffer_attention import triton

    slots, allowed = 90 if sizes.dry else 7000, bar(sizes)
    key, value = (sizes.random(1, sizes.kv_heads, slots, sizes.dim) for _ in "kv")
    for name, n, before in (("a token", 1, slots - 20), ("a prompt", 40, slots - 60)):
        query = sizes.random(1, n, sizes.heads, sizes.dim).transpose(1, 2)
        turn, beside = cases.angles(sizes, n), elsewhere(sizes, n)
        at = torch.tensor(before, device=sizes.device)
        key[:, :, before + n :] = value[:, :, before + n :] = float("nan")
        given = (query, key, value, at, 0.1, turn)
        exact = (*(t.double() for t in (query, key, value)), before, 0.1, _double(turn))
        want, want_lse = buffer_naive.buffer_attention_lse(*exact)
        plain = triton.buffer_attention(*given).transpose(1, 2)
        yield check(f"buffer_attention of {name} {sizes.dtype}", rmse_ratio(plain, want), allowed)
        out, lse = triton.buffer_attention_lse(*given)
        yield check(f"buffer_attention of {name}, float32", rmse_ratio(out, want), allowed)
        gap = float((lse - want_lse).abs().max())
        yield check(f"buffer_attention of {name}, lse", gap, 2e-2)
        joined = triton.buffer_attention_lse(*given, beside)[0]
        both = buffer_naive.buffer_attention_lse(*exact, beside)[0]
        yield check(f"buffer_attention of {name}, joined", rmse_ratio(joined, both), allowed)
        key.nan_to_num_(), value.nan_to_num_()


def packed(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.packed_attention import triton

    tokens = sizes.lengths[0] // 4
    for name, pair in cases.forms(sizes).items():
        held = cases.history(sizes, tokens, *pair)
        begin, end = cases.visible(sizes, held)
        end[-1] -= 5
        query = sizes.random(1, sizes.heads, 1, sizes.dim, dtype=torch.float32)
        given = (query, held, begin, end, 0.02, cases.angles(sizes, 1), elsewhere(sizes, 1))
        plain = triton.packed_attention(*given, asm=False)
        want = packed_naive.packed_attention(*given)
        # wrong by far where the matrix unit takes subnormal numbers for zero
        yield check(f"packed_attention {name}", rmse_ratio(plain[0], want[0]), HALF)
        yield check(f"packed_attention {name}, lse", float((plain[1] - want[1]).abs().max()), 5e-3)
        if not sizes.dry:
            fast = triton.packed_attention(*given, asm=True)
            unequal = float((fast[0] != plain[0]).sum())
            yield check(f"packed_attention {name}, assembly", unequal, 0, "numbers differ")


def packing(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.pack import triton

    for name, (form, other) in cases.forms(sizes).items():
        for part in {form, other}:
            states = sizes.random(2, sizes.kv_heads, sizes.group, sizes.dim) * 2 + 3
            params, _ = pack_naive.pack(states, part)
            slots = states.float().gather(
                3, slot_order(params.wide)[:, :, None].expand(states.shape)
            )
            got = triton.quantize(states, params, part)
            unequal = float((got != pack_naive.quantize(slots, params, part)).float().mean())
            few = 0 if part.transform == "none" else 1e-3
            yield check(f"codes of {name}, {part.levels} levels", unequal, few, "share")
            own, fitted = triton.pack(states, part)
            unequal = float((own.words != params.words).float().mean())
            yield check(f"scales of {name}, {part.levels} levels", unequal, 2e-3, "share")
            bits = triton.pack_bits(fitted, part)
            unequal = float((bits != pack_naive.pack_bits(fitted, part)).sum())
            yield check(f"bits of {name}, {part.levels} levels", unequal, 0, "bytes differ")


def unpacking(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.unpack_rotate import triton

    for name, pair in cases.forms(sizes).items():
        arguments, shape = packed_blocks(sizes, pair[0], 3, 20)
        out = torch.full(shape, float("nan"), device=sizes.device)
        got = triton.unpack_rotate(*arguments, out)
        want = unpack_naive.unpack_rotate(*arguments, torch.empty_like(out))
        yield check(f"unpack_rotate keys of {name}", rmse_ratio(got, want), 1e-4)


def per_token(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.token_pack import triton

    lengths = [20, 0, 33, 7]
    for dim, levels in ((sizes.dim, 4), (sizes.dim, 16), (96, 16), (48, 4)):
        form, name = Form(levels), f"of heads of {dim}, {levels} levels"
        states = sizes.random(2, sum(lengths), sizes.kv_heads, dim).transpose(1, 2) * 2 + 3
        states[:, :, 5], states[:, :, 30] = 2.5, 0.0  # constant
        got = triton.pack_tokens(states, lengths, form)
        unequal = float((got != token_naive.pack_tokens(states, lengths, form)).sum())
        yield check(f"pack_tokens {name}", unequal, 0, "bytes differ")
        each = [sum(token_naive.block_bytes(form, sizes.kv_heads, n, dim)) for n in lengths]
        size = torch.tensor(each, device=sizes.device)
        at, some = (size.cumsum(0) - size)[[2, 3, 1]], [lengths[i] for i in (2, 3, 1)]
        out = states.new_full((sizes.kv_heads, sum(some), dim), float("nan"))
        want = token_naive.unpack_tokens(got[1], at, some, form, out.clone())
        unequal = float((triton.unpack_tokens(got[1], at, some, form, out) != want).sum())
        yield check(f"unpack_tokens {name}", unequal, 0, "numbers differ")


def widening(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.widen import triton

    for name, pair in cases.forms(sizes).items():
        for values, form in zip((False, True), pair, strict=True):
            arguments = packed_blocks(sizes, form, 3, 20)[0]
            at = arguments[1].tolist()
            size = (sizes.kv_heads, 64, sizes.dim)
            given = (arguments[0], arguments[1][:1], at, [20] * 3, [60], form, size)
            got = triton.widen(*given, values=values)
            unequal = float((got != widen_naive.widen(*given, values=values)).sum())
            side = "values" if values else "keys"
            yield check(f"widen {side} of {name}", unequal, 0, "bytes differ")


def sampling(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.farthest import triton

    points = sizes.random(3, 40 if sizes.dry else 196, 2 * sizes.dim, dtype=torch.float32)
    got, want = triton.farthest(points), farthest_naive.farthest(points)
    yield check("farthest", rmse_ratio(got, want), 1e-4)


def summaries(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.score import triton as score
    from mmkv.kernels.summarize import triton as summarize

    key = sizes.random(sizes.kv_heads, 64, sizes.dim)
    tokens = torch.arange(60, device=sizes.device).view(3, 20)
    got = summarize.summarize(key, tokens, 4)
    yield check("summarize", rmse_ratio(got, summarize_naive.summarize(key, tokens, 4)), 1e-4)
    words = sizes.random(5, sizes.heads, sizes.dim, dtype=torch.float32)
    wanted = score_naive.score(words.double(), [got.double()])
    yield check("score", rmse_ratio(score.score(words, got.split(2)), wanted), 1e-4)


def mass(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.attention_mass import triton

    m = 100 if sizes.dry else 5000
    query = sizes.random(sizes.heads, 9, sizes.dim, dtype=torch.float16)
    key = sizes.random(sizes.kv_heads, m, sizes.dim, dtype=torch.float16)
    for before, turn in ((None, None), (m - 9, cases.angles(sizes, 9))):
        got = triton.attention_mass(query, key, 0.1, before, turn)
        want = mass_naive.attention_mass(query.double(), key.double(), 0.1, before, _double(turn))
        yield check(f"attention_mass, before={before}", rmse_ratio(got, want), HALF)


def merging(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.merge import triton

    key, value = (sizes.random(sizes.kv_heads, 90, sizes.dim, dtype=torch.float32) for _ in "kv")
    order = torch.rand(sizes.kv_heads, 90, device=sizes.device).argsort(dim=1)
    for mode in ("average", "pivot", "weighted"):
        given = (key, value, order[:, :30], order[:, 30:], mode)
        pairs = zip(triton.merge(*given), merge_naive.merge(*given), strict=True)
        yield check(f"merge, {mode}", max(rmse_ratio(a, b) for a, b in pairs), 1e-4)


def bar(sizes: Sizes) -> float:
    """What attention in this precision may be off by."""
    return BRAIN if sizes.dtype == torch.bfloat16 else HALF


def elsewhere(sizes: Sizes, n: int) -> tuple[Tensor, Tensor]:
    """Attention of n queries over other tokens, to be joined."""
    out = sizes.random(1, sizes.heads, n, sizes.dim, dtype=torch.float32)
    return out, sizes.random(1, sizes.heads, n, dtype=torch.float32) + 2


def packed_blocks(
    sizes: Sizes, form: Form, blocks: int, tokens: int
) -> tuple[tuple[object, ...], tuple[int, int, int]]:
    """Arguments of `unpack_rotate` but the last, for keys, and the shape of that one."""
    total = blocks * tokens
    states = sizes.random(1, sizes.kv_heads, total, sizes.dim)
    params, codes = pack_naive.pack(states, form)
    codes = codes[0].unflatten(1, (blocks, tokens)).transpose(0, 1)
    data = pack_naive.pack_bits(codes, form)
    at = torch.arange(blocks, device=sizes.device) * data.shape[1]
    rows = torch.zeros(total, dtype=torch.long, device=sizes.device)
    turn = cases.angles(sizes, total)
    arguments = (data.flatten(), at, [tokens] * blocks, rows, params, form, turn)
    return arguments, (sizes.kv_heads, total, sizes.dim)


def _double(pair: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    return None if pair is None else (pair[0].double(), pair[1].double())


CHECKS = (
    packed, buffers, packing, unpacking, per_token, window, writing, widening, mass, merging,
    summaries, sampling, subnormals,
)  # fmt: skip


def steps(sizes: Sizes) -> list[Step]:
    """What is checked, by name; what takes longest to compile comes first."""
    return [(f"right: {check.__name__}", 30.0, lambda c=check: c(sizes)) for check in CHECKS]
