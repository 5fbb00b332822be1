"""The window shows exactly what its description says, however frames are grouped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_reference import archived_kv, frequencies_of, slow_attention, slow_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import EVERY, FAMILIES, clip, small_vlm
from stock import tolerance

import mmkv
from mmkv.encode.window import EncodePass, Window
from mmkv.kernels.window_attention import naive
from mmkv.models.layers import Shape

FREQUENCIES = torch.tensor([1.0, 0.3, 0.1, 0.02], dtype=torch.float64)


class Angles:
    """A rotary of four frequencies on given axes, in float64."""

    def __init__(self, axis: list[int]) -> None:
        self.axis = torch.tensor(axis)

    def __call__(
        self, positions: np.ndarray, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = torch.tensor(positions)[self.axis].T.double() * FREQUENCIES
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


@st.composite
def streams(draw: st.DrawFn) -> dict[str, object]:
    """Sizes of a stream: what it opens with, how far it looks back, what chunks it comes in."""
    chunks = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    return {
        "local": draw(st.integers(1, 20)),
        "sinks": draw(st.integers(0, 6)),
        "chunks": chunks,
        "group": draw(st.sampled_from([1, 2, 7])),
        "three": draw(st.sampled_from([None, (True, False, False), (True, True, True)])),
        "seed": draw(st.integers(0, 1000)),
    }


@given(streams())
@settings(max_examples=60, deadline=None)
def test_chunked_window_attention_equals_the_slow_one(case: dict) -> None:
    local, sinks, chunks, group = case["local"], case["sinks"], case["chunks"], case["group"]
    advances = case["three"] or (True,)
    axes, n = len(advances), sinks + sum(chunks)
    torch.manual_seed(case["seed"])
    rng = np.random.default_rng(case["seed"])
    positions = np.broadcast_to(np.arange(n), (axes, n)).copy()
    if axes == 3:  # a frame's tokens share a time and spread over rows and columns
        after = positions[0, sinks:]
        spread = rng.integers(0, 5, size=(2, n - sinks))
        positions[1:, sinks:] = spread + (after if advances[1] else sinks)
    heads = 2 * group
    query, key = torch.randn(heads, n, 10).double(), torch.randn(2, n, 10).double()
    value = torch.randn(2, n, 10).double()
    rotary = Angles([i % axes for i in range(4)])
    window = Window(
        Shape(1, heads, 2, 10),
        rotary,
        [torch.device("cpu")],
        torch.float64,
        local,
        max([sinks, *chunks]),
        advances,
    )
    outs, start = [], 0
    for size in [sinks, *chunks] if sinks else chunks:
        part = slice(start, start + size)
        step = EncodePass(window, positions[:, part], sinks=bool(sinks) and start == 0)
        outs.append(
            step.attend(0, query[None, :, part], key[None, :, part], value[None, :, part], 0.3)
        )
        step.commit()
        start += size
    want = slow_attention(
        query,
        key,
        value,
        positions,
        FREQUENCIES,
        rotary.axis,
        local=local,
        sinks=sinks,
        advances=advances,
        scaling=0.3,
    )
    assert torch.allclose(torch.cat(outs, dim=1)[0], want, atol=1e-5)


@pytest.mark.parametrize("window_frames", [2, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_streams_keys_equal_a_slow_forward_over_everything(
    family: str, window_frames: int
) -> None:
    frames, times = clip(14, seed=11), [0.5 * i for i in range(14)]
    config = mmkv.CacheConfig(window_frames=window_frames, recent_frames=2, chunk_frames=4)
    with small_vlm(family).stream(config) as stream:
        stream.feed(frames, times)
        want = slow_stream(stream, frames, times)
        got = archived_kv(stream)
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()


@pytest.mark.parametrize("scores", [1, 500, 1 << 25])
@pytest.mark.parametrize("group", [1, 2, 7])
def test_every_way_to_compute_attention_gives_the_same(
    group: int, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(group)
    n, m, sinks, heads = 7, 23, 3, 2 * group
    query, far_query = torch.randn(2, 1, heads, n, 8)
    key, value = torch.randn(2, 1, 2, m, 8)
    far_key, far_value = torch.randn(2, 1, 2, sinks, 8)
    seen, gone = torch.rand(n, m) < 0.4, torch.rand(n, sinks) < 0.5
    seen[:, 0], gone[2] = True, False
    bias, far_bias = (torch.zeros(s.shape).masked_fill(~s, -torch.inf) for s in (seen, gone))
    near = (query.double() @ key.double().repeat_interleave(group, 1).mT) * 0.3 + bias
    away = (far_query.double() @ far_key.double().repeat_interleave(group, 1).mT) * 0.3 + far_bias
    both = torch.cat([value, far_value], dim=2).double().repeat_interleave(group, 1)
    want = (torch.cat([near, away], dim=-1).softmax(dim=-1) @ both).transpose(1, 2)
    far = naive.FarSinks(far_query, far_key, far_value, far_bias)
    monkeypatch.setattr(naive, "_MAX_SCORES", scores)
    for fused in {naive._HAS_FUSED, False}:
        monkeypatch.setattr(naive, "_HAS_FUSED", fused)
        got = naive.masked_attention(query, key, value, bias, far, 0.3)
        assert torch.allclose(got.double(), want, atol=1e-5)


def encoded(family: str, chunk: int, feeds: list[int], n: int = 26) -> mmkv.Stream:
    """A stream of n frames and a window of 6, encoded in pieces of the given sizes."""
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, chunk_frames=chunk)
    stream = small_vlm(family).stream(config)
    frames, at = clip(n, seed=5), 0
    while at < n:
        size = feeds[at % len(feeds)]
        part = frames[at : at + size]
        stream.feed(part, [0.7 * (at + i) for i in range(len(part))])
        at += size
    return stream


def ring(stream: mmkv.Stream) -> torch.Tensor:
    """Rotated keys and values `[L, 2, 1, H_kv, local, D]` of the window, oldest first."""
    window = stream._state.window
    layers = range(len(window.layers))
    start = window.seen - window.local
    return torch.stack([torch.stack(window.read(i, start, window.seen)) for i in layers])


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
@pytest.mark.parametrize("family", EVERY)
def test_chunk_size_changes_no_keys_and_values(family: str, chunk: int) -> None:
    one, other = encoded(family, 4, [26]), encoded(family, chunk, [26])
    with one, other:
        assert torch.allclose(archived_kv(one), archived_kv(other), atol=tolerance(family))
        assert torch.allclose(ring(one), ring(other), atol=tolerance(family))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.sampled_from(list(FAMILIES)))
@settings(max_examples=6, deadline=None)
def test_how_frames_are_pushed_changes_no_keys_and_values(feeds: list[int], family: str) -> None:
    one, other = encoded(family, 8, [26]), encoded(family, 3, feeds)
    with one, other:
        assert torch.allclose(archived_kv(one), archived_kv(other), atol=tolerance(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ring_holds_the_archived_keys_rotated_to_their_places(family: str) -> None:
    with encoded(family, 4, [26]) as stream:
        window, blocks = stream._state.window, stream._state.archive.snapshot().blocks
        positions = np.concatenate([b.layout.offsets + b.origin[:, None] for b in blocks], axis=1)[
            :, -window.local :
        ]
        kv = archived_kv(stream)[:, :, :, -window.local :]
        adapter = stream._runtime.adapter
        frequencies = frequencies_of(adapter).double()
        axis = adapter.frequency_axis(frequencies.numel())
        angles = (torch.tensor(positions)[axis].T.double() * frequencies).repeat(1, 2)
        turned, rest = kv[:, 0].double().tensor_split([angles.shape[-1]], dim=-1)
        left, right = turned.chunk(2, dim=-1)
        swapped = torch.cat([-right, left], dim=-1)
        want = torch.cat([turned * angles.cos() + swapped * angles.sin(), rest], dim=-1)
        got = ring(stream)
    assert torch.allclose(got[:, 0, 0].double(), want, atol=1e-5)
    assert torch.equal(got[:, 1, 0], kv[:, 1])


def test_the_window_never_grows() -> None:
    with encoded("llava_onevision", 4, [4]) as stream:
        before = stream.stats().window_bytes
        stream.feed(clip(40), np.arange(100.0, 140.0))
        assert stream.stats().window_bytes == before
