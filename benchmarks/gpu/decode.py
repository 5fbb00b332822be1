"""Decode attention over long histories: packed, and by every full-precision way found here."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu import cases
from benchmarks.gpu.report import Row, failed, missing, row
from benchmarks.gpu.setup import ROTATED, Sizes, rmse_ratio, seconds
from mmkv.kernels.pack.form import Form

BARS = {32 << 10: 1.8, 128 << 10: 4.5, 1 << 20: 5.0}


SLOW = 2.0  # times the fastest: beyond it, a way is not tried on longer histories


def decode(sizes: Sizes, tokens: int, bandwidth: float, slow: set[str]) -> Iterator[Row]:
    """One token's attention over `tokens` tokens of history, all layers.

    Args:
        bandwidth: bytes a second of a copy.
        slow: ways that are too slow to try; those found to be so are added.
    """
    query = sizes.random(1, sizes.heads, 1, sizes.dim)
    scale = sizes.dim**-0.5
    found: dict[str, float] = {}
    for name, taken in _baselines(sizes, query, tokens, scale, slow):
        if isinstance(taken, str):
            yield missing(f"decode {tokens}, {name}", taken)
            continue
        found[name] = taken
        yield row(
            f"decode {tokens}, {name}, {sizes.layers} layers", 1e3 * taken * sizes.layers, "ms"
        )
    best = min(found.values(), default=None)
    slow |= {name for name, taken in found.items() if best and taken > SLOW * best}
    for name, pair in cases.forms(sizes).items():
        try:
            taken, moved = _packed(sizes, query, tokens, pair, scale)
        except Exception as error:
            yield failed(f"decode {tokens}, packed {name}", error)
            continue
        yield row(
            f"decode {tokens}, packed {name}, {sizes.layers} layers",
            1e3 * taken * sizes.layers,
            "ms",
        )
        yield row(
            f"decode {tokens}, packed {name}, share of copy bandwidth",
            moved / taken / bandwidth,
            "",
        )
        if best is not None:
            bar = BARS.get(tokens) if name != "K4 V4" else None
            yield row(f"decode {tokens}, packed {name}, times the fastest", best / taken, "x", bar)


def _packed(
    sizes: Sizes, query: Tensor, tokens: int, pair: tuple[Form, Form], scale: float
) -> tuple[float, int]:
    """Seconds of one layer's attention over packed history, and the bytes of codes it reads."""
    from mmkv.kernels.packed_attention import triton

    held = [cases.history(sizes, tokens, *pair) for _ in range(1 if sizes.dry else ROTATED)]
    ends = cases.visible(sizes, held[0])
    calls = [
        lambda h=h, e=ends: triton.packed_attention(query, h, e, scale, asm=not sizes.dry)
        for h in held
    ]
    return seconds(sizes, calls), held[0].keys.nbytes + held[0].values.nbytes


def _baselines(
    sizes: Sizes, query: Tensor, tokens: int, scale: float, slow: set[str]
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
        if name in slow:
            yield name, f"left out: over {SLOW:g} times the fastest on a shorter history"
            continue
        try:
            error = rmse_ratio(
                attend(key[:, :, :short], value[:, :, :short]).view(want.shape), want
            )
            if not error <= 2e-2:
                yield name, f"wrong: error {error:.2g}"
                continue
            yield name, seconds(sizes, [lambda p=p, a=attend: a(*p) for p in held])
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:80]
            yield name, f"not here: {type(error).__name__}: {first}"


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
