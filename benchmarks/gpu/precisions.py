"""Kernels over full-precision keys and values against their torch versions in float64.

In every precision that models are loaded in, and in head sizes that are padded or have tiles of
their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu import cases
from benchmarks.gpu.cases import doubled, elsewhere
from benchmarks.gpu.report import Row, check
from benchmarks.gpu.setup import Sizes, rmse_ratio
from mmkv.kernels.attention_mass import naive as mass_naive
from mmkv.kernels.buffer_attention import naive as buffer_naive
from mmkv.kernels.merge import naive as merge_naive
from mmkv.kernels.packed_attention import naive as packed_naive
from mmkv.kernels.rotate_write import naive as write_naive
from mmkv.kernels.score import naive as score_naive
from mmkv.kernels.summarize import naive as summarize_naive
from mmkv.kernels.window_attention import naive as window_naive

# root mean square error over signal; products in plain tf32 are 6e-5 (attention mass) to 4e-4 off
BARS = {torch.bfloat16: 8e-3, torch.float16: 2e-3, torch.float32: 2e-5}
HEAD_SIZES = (64, 80, 256)  # beside 128: smaller, padded, and with tiles of their own
LARGEST = 512  # likewise; slow in the interpreter, so not in a dry run

Check = Callable[[Sizes], Iterator[Row]]


def checks(*, dry: bool) -> dict[str, Check]:
    """What is checked, by name; without bfloat16 in Triton's interpreter, which gets it wrong."""
    kinds = [kind for kind in BARS if not (dry and kind == torch.bfloat16)]
    found: dict[str, Check] = {}
    for kind in kinds:
        found[_name(kind)] = partial(_every, kind=kind)
    for dim in HEAD_SIZES if dry else (*HEAD_SIZES, LARGEST):
        found[f"{dim} channels"] = partial(_every, kind=kinds[0], dim=dim)
    return found


def _every(sizes: Sizes, kind: torch.dtype, dim: int | None = None) -> Iterator[Row]:
    sizes = replace(sizes, dtype=kind, dim=dim or sizes.dim)
    about = _name(kind) if dim is None else f"{dim} channels, {_name(kind)}"
    more = () if dim else (far, merging, summaries)
    for part in (window, buffers, writing, mass, *more):
        for name, error, allowed in part(sizes):
            unit = "numbers differ" if allowed == 0 else "error / signal"
            yield check(f"{name}, {about}", error, allowed, unit)


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


Found = Iterator[tuple[str, float, float]]  # what, how far off, and how far it may be


def window(sizes: Sizes) -> Found:
    from mmkv.kernels.window_attention import triton

    small = replace(sizes, chunk=min(sizes.chunk, 200), local=min(sizes.local, 900))
    query, key, value, chunk, sinks = cases.window(small)
    doubles = [t.double() for t in (query, key, value)]
    tokens = torch.arange(chunk.n, device=query.device)
    frame = max(1, chunk.n // 3)  # tokens that see each other both ways
    last = chunk.start + ((tokens // frame + 1) * frame - 1).clamp(max=chunk.n - 1)
    ahead = replace(chunk, last=last)
    for name, given in (
        ("window_attention", chunk),
        ("window_attention, frames seen ahead", ahead),
    ):
        got = triton.window_attention(query, key, value, given, sinks, sizes.dim**-0.5)
        exact = replace(given, near=doubled(given.near), far=doubled(given.far))
        want = window_naive.window_attention(*doubles, exact, doubled(sinks), sizes.dim**-0.5)
        yield name, rmse_ratio(got, want), BARS[sizes.dtype]


def writing(sizes: Sizes) -> Found:
    from mmkv.kernels.rotate_write import triton

    n, slots = 60, 100
    key, value = (sizes.random(1, n, sizes.kv_heads, sizes.dim).transpose(1, 2) for _ in "kv")
    turn = cases.angles(sizes, n)
    for name, at in (("a ring", 70), ("a buffer", torch.tensor(30, device=sizes.device))):
        got = [key.new_zeros(1, sizes.kv_heads, slots, sizes.dim) for _ in "kv"]
        want = [held.double() for held in got]
        triton.rotate_write(key, value, turn, *got, at)
        write_naive.rotate_write(key.double(), value.double(), doubled(turn), *want, at)
        yield f"rotate_write into {name}, keys", rmse_ratio(got[0], want[0]), BARS[sizes.dtype]
        unequal = float((got[1].double() != want[1]).sum())
        yield f"rotate_write into {name}, values", unequal, 0
    tokens = torch.rand(sizes.kv_heads, n, device=sizes.device).argsort(dim=1)[:, : n // 2]
    picked = [held.new_empty(1, sizes.kv_heads, n // 2, sizes.dim) for held in (key, value)]
    triton.rotate_write(key, value, None, *picked, 0, tokens)
    place = tokens[None, :, :, None].expand_as(picked[0])
    unequal = sum(
        float((p != held.gather(2, place)).sum())
        for p, held in zip(picked, (key, value), strict=True)
    )
    yield "rotate_write of tokens picked per head", unequal, 0


def buffers(sizes: Sizes) -> Found:
    from mmkv.kernels.buffer_attention import triton

    slots, allowed = 90 if sizes.dry else 7000, BARS[sizes.dtype]
    key, value = (sizes.random(1, sizes.kv_heads, slots, sizes.dim) for _ in "kv")
    for name, n, before in (("a token", 1, slots - 20), ("a prompt", 40, slots - 60)):
        query = sizes.random(1, n, sizes.heads, sizes.dim).transpose(1, 2)
        turn, beside = cases.angles(sizes, n), elsewhere(sizes, n)
        at = torch.tensor(before, device=sizes.device)
        key[:, :, before + n :] = value[:, :, before + n :] = float("nan")
        given = (query, key, value, at, 0.1, turn)
        exact = (*(t.double() for t in (query, key, value)), before, 0.1, doubled(turn))
        want, want_lse = buffer_naive.buffer_attention_lse(*exact)
        plain = triton.buffer_attention(*given).transpose(1, 2)
        yield f"buffer_attention of {name}", rmse_ratio(plain, want), allowed
        out, lse = triton.buffer_attention_lse(*given)
        yield f"buffer_attention of {name}, not rounded", rmse_ratio(out, want), allowed
        yield f"buffer_attention of {name}, lse", float((lse - want_lse).abs().max()), 3 * allowed
        joined = triton.buffer_attention_lse(*given, beside)[0]
        both = buffer_naive.buffer_attention_lse(*exact, beside)[0]
        yield f"buffer_attention of {name}, joined", rmse_ratio(joined, both), allowed
        key.nan_to_num_(), value.nan_to_num_()


def far(sizes: Sizes) -> Found:
    """A prompt over packed history, some of whose centres do not fit into words."""
    from mmkv.kernels.packed_attention import triton

    n = 3 if sizes.dry else 40
    held = cases.packed(sizes, 2, *cases.forms(sizes)["K1.5 V1.58"])
    visible = cases.visible(sizes, held)
    query = sizes.random(1, n, sizes.heads, sizes.dim).transpose(1, 2)
    given = (query, held, visible, 0.02, cases.angles(sizes, n), elsewhere(sizes, n))
    got, want = triton.packed_attention(*given), packed_naive.packed_attention(*given)
    allowed = max(BARS[sizes.dtype], BARS[torch.float16])  # folded queries are float16
    yield "packed_attention of a prompt", rmse_ratio(got[0], want[0]), allowed
    gap = float((got[1] - want[1]).abs().max())
    yield "packed_attention of a prompt, lse", gap, 3 * allowed


def mass(sizes: Sizes) -> Found:
    from mmkv.kernels.attention_mass import triton

    m = 100 if sizes.dry else 5000
    key = sizes.random(sizes.kv_heads, m, sizes.dim)
    for n, before in ((9, None), (2, m - 2)):
        query = sizes.random(sizes.heads, n, sizes.dim)
        turn = None if before is None else cases.angles(sizes, n)
        got = triton.attention_mass(query, key, 0.1, before, turn)
        want = mass_naive.attention_mass(query.double(), key.double(), 0.1, before, doubled(turn))
        yield f"attention_mass, before={before}", rmse_ratio(got, want), BARS[sizes.dtype]


def merging(sizes: Sizes) -> Found:
    from mmkv.kernels.merge import triton

    key, value = (sizes.random(sizes.kv_heads, 90, sizes.dim) for _ in "kv")
    order = torch.rand(sizes.kv_heads, 90, device=sizes.device).argsort(dim=1)
    for mode in ("average", "pivot", "weighted"):
        rest = (order[:, :30], order[:, 30:], mode)
        got = triton.merge(key, value, *rest)
        want = merge_naive.merge(key.float(), value.float(), *rest)
        error = max(rmse_ratio(a, b) for a, b in zip(got, want, strict=True))
        yield f"merge, {mode}", error, BARS[sizes.dtype]


def summaries(sizes: Sizes) -> Found:
    from mmkv.kernels.score import triton as score
    from mmkv.kernels.summarize import triton as summarize

    key = sizes.random(sizes.kv_heads, 64, sizes.dim)
    tokens = torch.arange(60, device=sizes.device).view(3, 20)
    got = summarize.summarize(key, tokens, 4)
    yield "summarize", rmse_ratio(got, summarize_naive.summarize(key, tokens, 4)), 2e-5
    words = sizes.random(5, sizes.heads, sizes.dim, dtype=torch.float32)
    held = got.to(torch.float16)  # as the index has them
    wanted = score_naive.score(words.double(), [held.double()])
    yield "score", rmse_ratio(score.score(words, held.split(2)), wanted), 2e-5
