"""The text behind a chunk observes it, and changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import SlowLocal, archived_kv, frequencies_of, phases, token_ids
from small_models import FAMILIES, clip, small_vlm

import mmkv
from mmkv.encode.proxy import proxy_of
from mmkv.engine import hooks
from mmkv.engine.carry import new_carry
from mmkv.eviction import ALL_TEXT
from mmkv.kernels.attention_mass import attention_mass

FRAMES = 12


def opened(family: str, **settings: Any) -> mmkv.Stream:
    sizes = {"window_frames": 4, "recent_frames": 2, "page_tokens": 4096, **settings}
    config = mmkv.CacheConfig(**sizes)
    stream = small_vlm(family).stream(config)
    stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
    return stream


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_as_if_nothing_had_been_behind_them(family: str) -> None:
    watched = {"keep_ratio": 0.5, "eviction": "text-prior", "focus": "watch the door"}
    with opened(family, **watched) as one, opened(family) as other:
        assert one._state.window.seen == other._state.window.seen
        torch.testing.assert_close(archived_kv(one), archived_kv(other), rtol=1e-4, atol=1e-5)
        for a, b in zip(one._state.window.layers, other._state.window.layers, strict=True):
            torch.testing.assert_close(a.key, b.key, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(a.value, b.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_text_says_moves_no_frame_but_what_is_kept(family: str) -> None:
    watched = {"keep_ratio": 0.3, "eviction": "text-prior"}
    with (
        opened(family, focus="aaaa", **watched) as a,
        opened(family, focus="zq 19", **watched) as b,
    ):
        torch.testing.assert_close(archived_kv(a), archived_kv(b), rtol=1e-4, atol=1e-5)
        masses = [torch.cat([x.mass for x in s._state.archive.snapshot().blocks], dim=2)
                  for s in (a, b)]  # fmt: skip
        assert not torch.allclose(*masses, rtol=1e-2)


class Slow:
    """A clip and a text in one plain causal forward, in float64."""

    def __init__(self, vlm: mmkv.VideoLM, positions: np.ndarray) -> None:
        frequencies = frequencies_of(vlm.adapter).double()
        axis = vlm.adapter.frequency_axis(frequencies.numel())
        self._angle = torch.tensor(positions)[axis].T.double() * frequencies  # [n, R / 2]
        self.weights: list[torch.Tensor] = []
        self._kept: list[Any] = []

    def attend(self, layer: int, query: Any, key: Any, value: Any, scaling: float) -> Any:
        self._kept.append((key, value))
        weights = self._weigh(query, key, scaling)
        group = query.shape[1] // key.shape[1]
        self.weights.append(weights.unflatten(0, (-1, group)).sum(dim=1))  # [H_kv, n, n]
        return self._mix(weights, value)

    def again(self, layer: int, query: Any, scaling: float) -> Any:
        key, value = self._kept[layer]
        return self._mix(self._weigh(query, key, scaling), value)

    def _weigh(self, query: Any, key: Any, scaling: float) -> Any:
        n, group = query.shape[2], query.shape[1] // key.shape[1]
        width = 2 * self._angle.shape[1]
        turn = torch.polar(torch.ones_like(self._angle), self._angle)
        q, k = (phases(x[0], width) * turn for x in (query, key.repeat_interleave(group, 1)))
        scores = torch.einsum("hid,hjd->hij", q, k.conj()).real
        rest = key[0].repeat_interleave(group, 0)[..., width:].double()
        scores = (scores + query[0, ..., width:].double() @ rest.transpose(1, 2)) * scaling
        hidden = ~torch.ones(n, n, dtype=torch.bool).tril()
        return scores.masked_fill(hidden, -torch.inf).softmax(dim=2)

    def _mix(self, weights: Any, value: Any) -> Any:
        group = len(weights) // value.shape[1]
        out = weights @ value[0].repeat_interleave(group, 0).double()
        return out.transpose(0, 1)[None].to(value.dtype)


@pytest.mark.parametrize("eviction", ["text-prior", "snapkv"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_mass_is_the_attention_of_a_clip_that_is_asked_about(family: str, eviction: str) -> None:
    settings = {"keep_ratio": 0.5, "eviction": eviction, "focus": "the door"}
    vlm = small_vlm(family)
    with opened(family, **settings, chunk_frames=4, window_frames=12) as stream:
        blocks = stream._state.archive.snapshot().blocks[: 4 // vlm.adapter.temporal_patch]
        mass = torch.cat([block.mass for block in blocks], dim=2)
        prefix = stream._state.frame_encoder.prefix
        proxy = proxy_of(stream.config, vlm.adapter, stream._template)
        frames, times = list(clip(FRAMES)[:4]), [0.0, 1.0, 2.0, 3.0]
        encoded = vlm.adapter.blocks(frames, times, stream._state.grid)
        n, text = sum(map(len, encoded)), len(proxy.embeds)
        opening = np.broadcast_to(np.arange(len(prefix)), (vlm.adapter.axes, len(prefix)))
        places = [opening, *(b.layout.offsets + b.origin[:, None] for b in blocks)]
        behind = max(int(p.max()) for p in places) + 1 + np.arange(text)
        places.append(np.broadcast_to(behind, (vlm.adapter.axes, text)))
        slow = Slow(vlm, np.concatenate(places, axis=1))
        embeds = [vlm.adapter.embed_text(prefix), *(b.embeds for b in encoded), proxy.embeds]
        kinds = torch.cat(
            [
                torch.zeros(len(prefix), dtype=torch.bool),
                *(b.visual for b in encoded),
                torch.zeros(text, dtype=torch.bool),
            ]
        )
        ids = token_ids(vlm.adapter, prefix, encoded, proxy.ids)
        extras: dict[str, Any] = dict(vlm.adapter.token_inputs(ids))
        local = SlowLocal(vlm.adapter, np.concatenate(places, axis=1), kinds.tolist())
        if encoded[0].deepstack:
            levels = range(len(encoded[0].deepstack))
            extras["visual_pos_masks"] = kinds[None]
            extras["deepstack_visual_embeds"] = [
                torch.cat([b.deepstack[i] for b in encoded]) for i in levels
            ]  # fmt: skip
        hooks.run(vlm.adapter, slow, torch.cat(embeds), new_carry(vlm.adapter), local, **extras)
    rows = text if eviction == "text-prior" else min(32, n + text)
    for layer, weights in enumerate(slow.weights):
        want = weights[:, -rows:, len(prefix) : len(prefix) + n].sum(dim=1)
        torch.testing.assert_close(mass[layer].double(), want, rtol=1e-3, atol=1e-5)


def test_policies_that_look_at_nothing_run_no_text() -> None:
    for eviction in ("temporal", "random", "diverse"):
        with opened("llava_onevision", keep_ratio=0.5, eviction=eviction) as stream:
            assert stream._state.frame_encoder.proxy is None
            assert stream._state.archive.last.mass is None
    with opened("llava_onevision", focus="the door") as stream:
        assert stream._state.frame_encoder.proxy is None


def test_a_policy_after_temporal_is_observed_as_by_itself() -> None:
    with opened("llava_onevision", keep_ratio=0.5, eviction="temporal+text-prior") as stream:
        assert stream._state.frame_encoder.proxy is not None
        assert stream._state.frame_encoder.proxy._observes == ALL_TEXT


def test_mass_adds_up_to_the_queries() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 5, 16, generator=generator)
    key = torch.randn(2, 12, 16, generator=generator)
    mass = attention_mass(query, key, 0.25, 7)
    torch.testing.assert_close(mass.sum(dim=1), torch.full((2,), 10.0))
