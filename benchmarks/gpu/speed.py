"""How fast the kernels are, against the fastest full-precision attention found on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu import cases
from benchmarks.gpu.correctness import packed_blocks
from benchmarks.gpu.decode import decode
from benchmarks.gpu.report import Row, Step, row
from benchmarks.gpu.sdpa import fastest
from benchmarks.gpu.setup import ROTATED, Sizes, seconds
from mmkv.kernels.attention_mass import naive as mass_naive


def steps(sizes: Sizes) -> list[Step]:
    """What is timed, by name."""
    state: dict[str, float] = {}
    slow: set[str] = set()
    found: list[Step] = [("copy bandwidth", 5.0, lambda: copy(sizes, state))]
    for tokens in sizes.lengths:
        found.append(
            (
                f"decode over {tokens}",
                40.0,
                lambda t=tokens: decode(sizes, t, bandwidth(sizes, state), slow),
            )
        )
    for step in (packing, unpacking, writing):
        found.append((step.__name__, 15.0, lambda s=step: s(sizes, state)))
    for step in (window, buffers, mass, index):
        found.append((step.__name__, 15.0, lambda s=step: s(sizes)))
    return found


def copy(sizes: Sizes, state: dict[str, float]) -> Iterator[Row]:
    yield row("copy bandwidth", bandwidth(sizes, state) / 1e12, "TB/s")


def bandwidth(sizes: Sizes, state: dict[str, float]) -> float:
    """Bytes a second, read and written, of a large copy; measured once per process."""
    if "copy" in state:
        return state["copy"]
    source = torch.empty(1 << (16 if sizes.dry else 29), dtype=torch.uint8, device=sizes.device)
    into = torch.empty_like(source)
    taken = seconds(sizes, [lambda: into.copy_(source)])
    state["copy"] = 2 * source.numel() / taken
    return state["copy"]


def packing(sizes: Sizes, state: dict[str, float]) -> Iterator[Row]:
    from mmkv.codecs import make_codec
    from mmkv.kernels.pack import triton
    from mmkv.models.layers import Shape

    pages = 2 if sizes.dry else 128
    lengths = [sizes.group // 4] * 4
    for name, pair in cases.forms(sizes).items():
        for form in dict.fromkeys(pair):
            held = [sizes.random(pages, sizes.kv_heads, sizes.group, sizes.dim) for _ in range(2)]
            calls = [lambda s=s, f=form: triton.pack(s, lengths, [sizes.group], f) for s in held]
            share = held[0].nbytes / seconds(sizes, calls) / bandwidth(sizes, state)
            yield row(
                f"pack {form.levels} levels ({name}), share of copy bandwidth", share, "", 0.6
            )
    shape = Shape(sizes.layers, sizes.heads, sizes.kv_heads, sizes.dim)
    codec = make_codec(None, shape, key_bits=1.5, value_bits=2)
    lengths = [8 if sizes.dry else 196] * 3
    page = sizes.random(sizes.layers, 2, sizes.kv_heads, sum(lengths), sizes.dim)
    taken = seconds(
        sizes, [lambda: codec.encode_layers(range(sizes.layers), page, lengths)], graph=False
    )
    yield row(f"pack a page of {sum(lengths)} tokens, all layers, to the host", 1e3 * taken, "ms")


def unpacking(sizes: Sizes, state: dict[str, float]) -> Iterator[Row]:
    from mmkv.kernels.unpack_rotate import triton

    for name, (form, _) in cases.forms(sizes).items():
        arguments, shape = packed_blocks(
            sizes, form, 4 if sizes.dry else 64, 20 if sizes.dry else 196
        )
        outs = [
            torch.empty(shape, dtype=sizes.dtype, device=sizes.device)
            for _ in range(_layers(sizes))
        ]
        taken = seconds(sizes, [triton.launcher(*arguments, out) for out in outs])
        out = outs[0]
        share = out.nbytes / taken / bandwidth(sizes, state)
        yield row(f"unpack_rotate keys {name}, share of copy bandwidth", share, "", 0.6)
        whole = partial(triton.unpack_rotate, *arguments, out)
        taken = seconds(sizes, [whole], graph=False)
        yield row(f"unpack_rotate keys {name}, with what is prepared for it", 1e6 * taken, "us")


def writing(sizes: Sizes, state: dict[str, float]) -> Iterator[Row]:
    from mmkv.kernels.rotate_write import triton

    n, slots = sizes.chunk, 2 * sizes.chunk
    turn = cases.angles(sizes, n)
    key, value = (sizes.random(1, n, sizes.kv_heads, sizes.dim).transpose(1, 2) for _ in "kv")
    rings = [  # of all layers: what is written does not fit in the L2 cache
        [sizes.random(1, sizes.kv_heads, slots, sizes.dim) for _ in "kv"]
        for _ in range(sizes.layers)
    ]
    calls = [lambda r=r: triton.rotate_write(key, value, turn, *r, n // 2 + n) for r in rings]
    share = 2 * (key.nbytes + value.nbytes) / seconds(sizes, calls) / bandwidth(sizes, state)
    yield row(f"rotate_write of {n} tokens, share of copy bandwidth", share, "")


def _layers(sizes: Sizes) -> int:
    """Layers whose buffers are used in turn."""
    return 1 if sizes.dry else ROTATED


def buffers(sizes: Sizes) -> Iterator[Row]:
    """An answer's attention, against the fastest SDPA over exactly what is filled."""
    from mmkv.kernels.buffer_attention import triton

    filled = 100 if sizes.dry else 34 * 196
    at = torch.tensor(filled, device=sizes.device)
    for name, n in (("a token", 1), ("a prompt", 4 if sizes.dry else 60)):
        held = [
            tuple(sizes.random(1, sizes.kv_heads, filled + 300, sizes.dim) for _ in "kv")
            for _ in range(_layers(sizes))
        ]
        query, turn = sizes.random(1, sizes.heads, n, sizes.dim), cases.angles(sizes, n)
        calls = [lambda p=p, q=query, t=turn: triton.buffer_attention(q, *p, at, 0.1, t)
                 for p in held]  # fmt: skip
        own = seconds(sizes, calls)
        yield row(f"buffer_attention of {name} over {filled}", 1e6 * own, "us")
        # without a mask a prompt sees a little more, but more ways take it
        shown = [(key[:, :, : filled + n], value[:, :, : filled + n]) for key, value in held]
        taken, way = fastest(sizes, query, shown, 0.1)
        if n > 1:
            seen = torch.ones(n, filled + n, dtype=torch.bool, device=sizes.device).tril(filled)
            taken, way = min((taken, way), fastest(sizes, query, shown, 0.1, seen))
        yield row(f"buffer_attention of {name}, times SDPA", taken / own, f"x {way}")


def window(sizes: Sizes) -> Iterator[Row]:
    """Against SDPA over the visible keys in one piece, masked, and causal where that is faster."""
    from mmkv.kernels.window_attention import triton

    query, key, value, chunk, sinks = cases.window(sizes)
    scale = sizes.dim**-0.5
    own = seconds(sizes, [lambda: triton.window_attention(query, key, value, chunk, sinks, scale)])
    yield row(f"window_attention, {sizes.chunk} queries", 1e3 * own, "ms")
    taken, way = fastest(sizes, query, [(key, value)], scale, chunk.bias.isfinite())
    yield row("window_attention, times SDPA with a mask", taken / own, f"x {way}", 0.9)
    # without a mask it multiplies a little more: every query sees the whole ring
    more = key.shape[2] / (sizes.local + 14)  # keys that it sees over those that a query sees here
    taken, way = fastest(sizes, query, [(key, value)], scale)
    unit = f"x {way}"
    yield row(
        "window_attention, times SDPA without, per visible key", taken / more / own, unit, 0.9
    )


def mass(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.attention_mass import triton

    for n in (4,) if sizes.dry else (8, 512):
        for m in (64,) if sizes.dry else (16 << 10, 128 << 10):
            query = sizes.random(sizes.heads, n, sizes.dim)
            key = sizes.random(sizes.kv_heads, m, sizes.dim)
            own = seconds(sizes, [partial(triton.attention_mass, query, key, 0.1)])
            naive = seconds(sizes, [partial(mass_naive.attention_mass, query, key, 0.1)])
            yield row(f"attention_mass {n} x {m}, times torch", naive / own, "x", 1.0)


def index(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.score import triton as score
    from mmkv.kernels.summarize import triton as summarize

    blocks = 100 if sizes.dry else 100_000
    summary = sizes.random(blocks, 1, sizes.kv_heads, sizes.dim, dtype=torch.float16)
    words = sizes.random(1, sizes.heads, sizes.dim, dtype=torch.float32)
    taken = seconds(sizes, [lambda: score.score(words, [summary])])
    yield row(f"score of {blocks} blocks", 1e3 * taken, "ms", 1.0, least=False)
    key = sizes.random(sizes.kv_heads, sizes.chunk, sizes.dim)
    tokens = torch.arange(sizes.chunk, device=sizes.device).view(-1, 8 if sizes.dry else 196)
    taken = seconds(sizes, [lambda: summarize.summarize(key, tokens, 3)])
    yield row(f"summarize a chunk of {sizes.chunk} tokens", 1e3 * taken, "ms")
