"""Positions are exact however far the stream has come."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv, frequencies_of
from mpmath import mp
from small_models import FAMILIES, clip, small_vlm
from torch import Tensor

import mmkv
from mmkv.engine.rotary import Rotary

FAR = 3_000_000


class Shifted:
    """A model's rotary for a stream that began this far along the axes it advances on."""

    def __init__(self, rotary: Rotary, advances: tuple[bool, ...], shift: int) -> None:
        self._rotary, self._shift = rotary, np.array(advances, dtype=np.int64)[:, None] * shift

    def __call__(self, positions: np.ndarray, *where: Any) -> Any:
        return self._rotary(positions + self._shift, *where)

    @property
    def local(self) -> Shifted:
        return Shifted(self._rotary.local, tuple(self._shift[:, 0] > 0), int(self._shift.max()))

    def at(self, positions: Tensor, dtype: torch.dtype) -> Any:
        return self._rotary.at(positions + torch.from_numpy(self._shift), dtype)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", [1_000_003, 87_654_321])
def test_angles_are_exact_far_out(family: str, position: int) -> None:
    vlm = small_vlm(family)
    frequencies = frequencies_of(vlm.adapter)
    where = np.full((vlm.adapter.axes, 1), position)
    cos, sin = vlm.rotary(where, torch.device("cpu"), torch.float32)
    mp.dps = 40
    for i, frequency in enumerate(frequencies.tolist()):
        exact = Fraction(frequency) * position
        angle = mp.mpf(exact.numerator) / exact.denominator
        assert abs(float(cos[0, i]) - float(mp.cos(angle))) < 1e-6
        assert abs(float(sin[0, i]) - float(mp.sin(angle))) < 1e-6


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_each_axis_turns_its_own_frequencies(family: str) -> None:
    vlm = small_vlm(family)
    frequencies = frequencies_of(vlm.adapter)
    axis = vlm.adapter.frequency_axis(frequencies.numel())
    where = np.array([[FAR], [FAR + 17], [FAR + 31]])
    cos, _ = vlm.rotary(where, torch.device("cpu"), torch.float64)
    for i, frequency in enumerate(frequencies.tolist()):
        want = float(mp.cos(mp.mpf(frequency) * int(where[axis[i], 0])))
        assert abs(float(cos[0, i]) - want) < 1e-7


def asked(family: str, shift: int, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, ...]:
    """Archived keys and values, and answer logits, of a stream that began at a position."""
    vlm = small_vlm(family)
    monkeypatch.setattr(vlm, "rotary", Shifted(vlm.rotary, vlm.adapter.advances, shift))
    config = mmkv.CacheConfig(window_frames=4, recent_frames=2, retrieve_frames=6)
    with vlm.stream(config) as stream:
        stream.feed(clip(16, seed=2), np.arange(16.0))
        reply = stream.ask_iter("What is there?", max_new_tokens=4)
        logits = [reply._generation.logits]
        logits += [reply._generation.logits for _ in iter(reply._advance, False)]
        return archived_kv(stream), torch.stack(logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_far_out_is_the_same_as_one_at_zero(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv, logits = asked(family, 0, monkeypatch)
    far_kv, far_logits = asked(family, FAR, monkeypatch)
    assert (kv - far_kv).abs().max() <= 1e-4 * kv.abs().max()
    assert (logits - far_logits).abs().max() <= 1e-4 * logits.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_stand_at_whole_positions_after_hours(family: str) -> None:
    vlm = small_vlm(family)
    with vlm.stream(mmkv.CacheConfig(window_frames=4, recent_frames=2)) as stream:
        stream.feed(clip(4), [0.0, 0.5, 1.0, 1.5])
        stream.feed(clip(4), [1e6, 1e6 + 0.5, 1e6 + 1.0, 1e6 + 1.5])
        last = stream._state.archive.last
        assert last is not None
        assert last.origin.dtype == np.int64
        if family == "qwen2_5_vl":  # two positions a second, from the stream's first frame on
            assert last.origin[0] - len(stream._state.frame_encoder.prefix) == 2 * (10**6 + 1)
        assert stream.ask("What?", max_new_tokens=2).as_of == 1e6 + 1.5


def test_the_engine_keeps_float64_until_the_cosine() -> None:
    vlm = small_vlm("llava_onevision")
    one = vlm.rotary(np.array([[FAR]]), torch.device("cpu"), torch.float64)
    two = vlm.rotary(np.array([[FAR + 1]]), torch.device("cpu"), torch.float64)
    frequencies = frequencies_of(vlm.adapter).double()
    turned = torch.acos((one[0] * two[0] + one[1] * two[1]).clamp(-1, 1))[0]
    assert torch.allclose(turned[: len(frequencies)], frequencies, atol=1e-5)
