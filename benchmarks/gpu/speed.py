"""How fast the kernels are, against the fastest full-precision attention found on this machine."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu import cases
from benchmarks.gpu.correctness import packed_blocks
from benchmarks.gpu.report import Row, Step
from benchmarks.gpu.setup import Sizes, rmse_ratio, seconds
from mmkv.kernels.attention_mass import naive as mass_naive

ROTATED = 8  # layers whose buffers are used in turn, so that none stays in the L2 cache
BARS = {32 << 10: 1.8, 128 << 10: 4.5, 1 << 20: 5.0}


def steps(sizes: Sizes) -> list[Step]:
    """What is timed, by name."""
    state: dict[str, float] = {}
    found: list[Step] = [("copy bandwidth", 5.0, lambda: copy(sizes, state))]
    for tokens in sizes.lengths:
        found.append((f"decode over {tokens}", 40.0, lambda t=tokens: decode(sizes, t, state)))
    for step in (packing, unpacking):
        found.append((step.__name__, 15.0, lambda s=step: s(sizes, state)))
    for step in (window, mass, index):
        found.append((step.__name__, 15.0, lambda s=step: s(sizes)))
    return found


def row(name: str, value: float, unit: str, bar: float | None = None, least: bool = True) -> Row:
    """A measured row; `bar` is the least it should be, or the most."""
    if bar is None:
        return {"name": name, "value": float(value), "unit": unit}
    ok = value >= bar if least else value <= bar
    sign = ">=" if least else "<="
    return {"name": name, "value": float(value), "unit": unit, "bar": f"{sign} {bar:g}", "ok": ok}


def copy(sizes: Sizes, state: dict[str, float]) -> Iterator[Row]:
    source = torch.empty(1 << (16 if sizes.dry else 29), dtype=torch.uint8, device=sizes.device)
    into = torch.empty_like(source)
    taken = seconds(sizes, [lambda: into.copy_(source)])
    state["copy"] = 2 * source.numel() / taken  # read and written
    yield row("copy bandwidth", state["copy"] / 1e12, "TB/s")


def decode(sizes: Sizes, tokens: int, state: dict[str, float]) -> Iterator[Row]:
    """One token's attention over so much history, all layers."""
    from mmkv.kernels.packed_attention import triton

    query = sizes.random(1, sizes.heads, 1, sizes.dim)
    scale = sizes.dim**-0.5
    best = None
    for name, taken in _baselines(sizes, query, tokens, scale):
        if isinstance(taken, str):
            yield {"name": f"decode {tokens}, {name}", "value": None, "unit": taken}
            continue
        best = taken if best is None else min(best, taken)
        yield row(
            f"decode {tokens}, {name}, {sizes.layers} layers", 1e3 * taken * sizes.layers, "ms"
        )
    for name, pair in cases.forms(sizes).items():
        held = [cases.history(sizes, tokens, *pair) for _ in range(1 if sizes.dry else ROTATED)]
        ends = cases.visible(sizes, held[0])
        for layer in held:
            assert layer.compact
        calls = [
            lambda h=h, e=ends: triton.packed_attention(query, h, *e, scale, asm=not sizes.dry)
            for h in held
        ]
        taken = seconds(sizes, calls)
        moved = held[0].keys.nbytes + held[0].values.nbytes
        yield row(f"decode {tokens}, packed {name}, {sizes.layers} layers",
                  1e3 * taken * sizes.layers, "ms")  # fmt: skip
        yield row(f"decode {tokens}, packed {name}, share of copy bandwidth",
                  moved / taken / state["copy"], "")  # fmt: skip
        if best is not None:
            bar = BARS.get(tokens) if name != "K4 V4" else None
            yield row(f"decode {tokens}, packed {name}, times the fastest", best / taken, "x", bar)


def _baselines(
    sizes: Sizes, query: Tensor, tokens: int, scale: float
) -> Iterator[tuple[str, float | str]]:
    """Seconds of one layer's attention in full precision, by every way there is, or why not."""
    count = ROTATED if tokens <= 128 << 10 else 2  # 1 M tokens of one layer are 2 GB
    held = [
        tuple(sizes.random(1, sizes.kv_heads, tokens, sizes.dim) for _ in "kv")
        for _ in range(count)
    ]
    key, value = held[0]
    short = min(tokens, 1 << 15)
    grouped = query.view(1, sizes.kv_heads, -1, sizes.dim)  # a key head's queries as rows
    scores = grouped.float() @ key[:, :, :short].float().transpose(2, 3) * scale
    want = (scores.softmax(-1) @ value[:, :, :short].float()).view(query.shape)
    for name, attend in _ways(sizes, grouped, scale).items():
        try:
            error = rmse_ratio(
                attend(key[:, :, :short], value[:, :, :short]).view(want.shape), want
            )
            if not error <= 2e-2:
                yield name, f"wrong: error {error:.2g}"
                continue
            yield name, seconds(sizes, [lambda p=p, a=attend: a(*p) for p in held])
        except Exception as error:
            yield name, f"not here: {type(error).__name__}: {str(error).splitlines()[0][:80]}"


def _ways(
    sizes: Sizes, grouped: Tensor, scale: float
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    def backend(which: SDPBackend) -> Callable[[Tensor, Tensor], Tensor]:
        def attend(key: Tensor, value: Tensor) -> Tensor:
            with sdpa_kernel(which):
                return F.scaled_dot_product_attention(grouped, key, value, scale=scale)

        return attend

    ways = {f"sdpa {which.name.lower()}": backend(which) for which in (
        SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH)}  # fmt: skip
    query = grouped.reshape(1, sizes.heads, 1, sizes.dim)

    def flash(key: Tensor, value: Tensor) -> Tensor:
        module = importlib.import_module("flash_attn")
        parts = [t.transpose(1, 2) for t in (query, key, value)]
        return module.flash_attn_with_kvcache(*parts, softmax_scale=scale).transpose(1, 2)

    def flex(key: Tensor, value: Tensor) -> Tensor:
        return _compiled()(query, key, value, scale=scale, enable_gqa=True)

    return ways if sizes.dry else ways | {"flash_attn": flash, "flex_attention": flex}


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled


def packing(sizes: Sizes, state: dict[str, float]) -> Iterator[Row]:
    from mmkv.kernels.pack import triton

    groups = 2 if sizes.dry else 128
    for name, (key_form, value_form) in cases.forms(sizes).items():
        for form in dict.fromkeys((key_form, value_form)):
            held = [sizes.random(groups, sizes.kv_heads, sizes.group, sizes.dim) for _ in range(2)]
            calls = [lambda s=s, f=form: triton.pack_bits(triton.pack(s, f)[1], f) for s in held]
            taken = seconds(sizes, calls, graph=False)
            share = held[0].nbytes / taken / state["copy"]
            yield row(
                f"pack {form.levels} levels ({name}), share of copy bandwidth", share, "", 0.6
            )


def unpacking(sizes: Sizes, state: dict[str, float]) -> Iterator[Row]:
    from mmkv.kernels.unpack_rotate import triton

    for name, (form, _) in cases.forms(sizes).items():
        arguments, shape = packed_blocks(
            sizes, form, 4 if sizes.dry else 64, 20 if sizes.dry else 196
        )
        out = torch.empty(shape, dtype=sizes.dtype, device=sizes.device)
        call = lambda: triton.unpack_rotate(*arguments, out)  # noqa: E731, B023
        taken = seconds(sizes, [call])
        share = out.nbytes / taken / state["copy"]
        yield row(f"unpack_rotate keys {name}, share of copy bandwidth", share, "", 0.6)


def window(sizes: Sizes) -> Iterator[Row]:
    """Against SDPA over the visible keys in one piece, masked, and causal where that is faster."""
    from mmkv.kernels.window_attention import triton

    query, key, value, chunk, sinks = cases.window(sizes)
    scale = sizes.dim**-0.5
    own = seconds(sizes, [lambda: triton.window_attention(query, key, value, chunk, sinks, scale)])
    yield row(f"window_attention, {sizes.chunk} queries", 1e3 * own, "ms")
    mask = chunk.bias.isfinite()
    masked = lambda: F.scaled_dot_product_attention(  # noqa: E731
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
    )
    taken = seconds(sizes, [masked])
    yield row("window_attention, times SDPA with a mask", taken / own, "x", 0.9)
    # without a mask it multiplies a little more: every query sees the whole ring
    plain = lambda: F.scaled_dot_product_attention(  # noqa: E731
        query, key, value, scale=scale, enable_gqa=True
    )
    more = key.shape[2] / (sizes.local + 14)  # keys that it sees over those that a query sees here
    taken = seconds(sizes, [plain]) / more
    yield row("window_attention, times SDPA without, per visible key", taken / own, "x", 0.9)


def mass(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.attention_mass import triton

    for n in (4,) if sizes.dry else (8, 512):
        for m in (64,) if sizes.dry else (16 << 10, 128 << 10):
            query = sizes.random(sizes.heads, n, sizes.dim)
            key = sizes.random(sizes.kv_heads, m, sizes.dim)
            own = seconds(sizes, [lambda: triton.attention_mass(query, key, 0.1)])  # noqa: B023
            naive = seconds(sizes, [lambda: mass_naive.attention_mass(query, key, 0.1)])  # noqa: B023
            yield row(f"attention_mass {n} x {m}, times torch", naive / own, "x", 1.0)


def index(sizes: Sizes) -> Iterator[Row]:
    from mmkv.kernels.score import triton as score
    from mmkv.kernels.summarize import triton as summarize

    blocks = 100 if sizes.dry else 100_000
    summary = sizes.random(blocks, 1, sizes.kv_heads, sizes.dim, dtype=torch.float32)
    words = sizes.random(1, sizes.heads, sizes.dim, dtype=torch.float32)
    taken = seconds(sizes, [lambda: score.score(words, summary)])
    yield row(f"score of {blocks} blocks", 1e3 * taken, "ms", 1.0, least=False)
    key = sizes.random(sizes.kv_heads, sizes.chunk, sizes.dim)
    tokens = torch.arange(sizes.chunk, device=sizes.device).view(-1, 8 if sizes.dry else 196)
    taken = seconds(sizes, [lambda: summarize.summarize(key, tokens, 3)])
    yield row(f"summarize a chunk of {sizes.chunk} tokens", 1e3 * taken, "ms")
