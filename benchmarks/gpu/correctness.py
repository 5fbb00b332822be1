"""Every Triton kernel against its torch version, on the device at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import cases, precisions
from benchmarks.gpu.cases import elsewhere
from benchmarks.gpu.report import Row, Step, check
from benchmarks.gpu.setup import Sizes, rmse_ratio
from mmkv.kernels.farthest import naive as farthest_naive
from mmkv.kernels.pack import naive as pack_naive
from mmkv.kernels.pack.form import Fit, Form, slot_order
from mmkv.kernels.packed_attention import naive as packed_naive
from mmkv.kernels.token_pack import naive as token_naive
from mmkv.kernels.unpack_rotate import naive as unpack_naive
from mmkv.kernels.widen import naive as widen_naive

HALF = precisions.BARS[torch.float16]


def subnormals(sizes: Sizes) -> Iterator[Row]:
    """Whether the matrix unit takes the smallest fp16 numbers, as `packed_attention` needs."""
    from benchmarks.gpu.subnormal import products

    got = products(sizes.device)
    wanted = torch.arange(256, device=sizes.device).view(16, 16).double() * 2.0**-24
    unequal = float((got.double() != wanted).sum())
    yield check("subnormal fp16 numbers in the matrix unit", unequal, 0, "numbers differ")


def packed(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.packed_attention import triton

    tokens = sizes.lengths[0] // 4
    for name, pair in cases.forms(sizes).items():
        held = cases.history(sizes, tokens, *pair)
        visible = cases.visible(sizes, held)
        visible[-1, 1] -= 5
        query = sizes.random(1, sizes.heads, 1, sizes.dim, dtype=torch.float32)
        given = (query, held, visible, 0.02, cases.angles(sizes, 1), elsewhere(sizes, 1))
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

    tokens = sizes.group + 20  # one long group, and some that are less than a sample
    for name, pair in cases.forms(sizes).items():
        for form in dict.fromkeys(pair):
            for groups in ([tokens], [16] * 3 + [tokens - 48]):
                lengths = [7, 0, 20, tokens - 27]
                states = sizes.random(2, sizes.kv_heads, tokens, sizes.dim) * 2 + 3
                about = f"{name}, {form.levels} levels, {len(groups)} groups"
                fit, packed = triton.pack(states, lengths, groups, form)
                want, _ = pack_naive.pack(states, lengths, groups, form)
                unequal = float((fit.wide != want.wide).float().mean())
                yield check(f"wide channels of {about}", unequal, 1e-2, "share")
                if not form.wide:  # a channel more or less shifts all others
                    unequal = float((fit.words != want.words).float().mean())
                    yield check(f"scales of {about}", unequal, 2e-3, "share")
                same = requantized(states, fit, lengths, groups, form)
                unequal = float((packed != same).float().mean())
                few = 0 if form.transform == "none" else 4e-3
                yield check(f"bytes of {about}", unequal, few, "share")


def requantized(
    states: Tensor, fit: Fit, lengths: Sequence[int], groups: Sequence[int], form: Form
) -> Tensor:
    """A page's bytes in torch, by the words that are given."""
    codes = []
    for i, part in enumerate(states.float().split(list(groups), dim=2)):
        own = Fit(*(held.unflatten(0, (len(states), -1))[:, i] for held in astuple(fit)))
        order = slot_order(own.wide)[:, :, None].expand_as(part)
        codes.append(pack_naive.quantize(part.gather(3, order), own.params, form))
    return pack_naive.blocks(torch.cat(codes, dim=2), lengths, form)


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
            data, pages = (part.to(sizes.device) for part in (arguments[0], arguments[1][:1]))
            given = (data, pages, at, [20] * 3, [60], form, size)
            got = triton.widen(*given, values=values)
            unequal = float((got != widen_naive.widen(*given, values=values)).sum())
            side = "values" if values else "keys"
            yield check(f"widen {side} of {name}", unequal, 0, "bytes differ")


def sampling(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.farthest import triton

    points = sizes.random(3, 40 if sizes.dry else 196, 2 * sizes.dim, dtype=torch.float32)
    got, want = triton.farthest(points), farthest_naive.farthest(points)
    yield check("farthest", rmse_ratio(got, want), 1e-4)


def packed_blocks(
    sizes: Sizes, form: Form, blocks: int, tokens: int
) -> tuple[tuple[Any, ...], tuple[int, int, int]]:
    """Arguments of `unpack_rotate` but the last, for keys, and the shape of that one."""
    total = blocks * tokens
    states = sizes.random(1, sizes.kv_heads, total, sizes.dim)
    fit, data = pack_naive.pack(states, [tokens] * blocks, [total], form)
    params, data = fit.params.to(torch.device("cpu")), data.flatten().cpu()
    at = torch.arange(blocks) * (len(data) // blocks)
    rows = torch.zeros(total, dtype=torch.long)
    turn = cases.angles(sizes, total)
    arguments = (data, at, [tokens] * blocks, rows, params, form, turn)
    return arguments, (sizes.kv_heads, total, sizes.dim)


def checks(*, dry: bool) -> dict[str, precisions.Check]:
    """What is checked, by name; what takes longest to compile comes first."""
    own = (packed, packing, unpacking, per_token, widening, sampling, subnormals)
    return precisions.checks(dry=dry) | {check.__name__: check for check in own}


def steps(sizes: Sizes) -> list[Step]:
    """The same as steps."""
    found = checks(dry=sizes.dry).items()
    return [(f"right: {name}", 30.0, partial(check, sizes)) for name, check in found]
