"""Frames may come at any rate: positions follow the clock as in plain transformers."""

from __future__ import annotations

import pytest
import torch
from small_models import EVERY, clip, small_vlm
from stock import QUESTION, Stock, teacher_forced

import mmkv


@pytest.mark.parametrize("gap", [0.04, 0.1, 0.25, 1.0, 7.0])
@pytest.mark.parametrize("family", EVERY)
def test_any_frame_rate_equals_plain_transformers(family: str, gap: float) -> None:
    vlm = small_vlm(family)
    frames, times = clip(12, seed=3), [gap * i for i in range(12)]
    config = mmkv.CacheConfig(window_frames=20, recent_frames=2, retrieve_frames=50)
    with vlm.stream(config) as stream:
        stream.feed(frames, times)
        rows, ids = teacher_forced(stream, 2)
    with torch.inference_mode():
        expected = Stock(vlm, frames, times).logits(QUESTION, ids)
    for step, row in enumerate(rows[: len(ids)]):
        want = expected[-1 - len(ids) + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())


@pytest.mark.parametrize("start", [0.0, 3600.0, 1.7e9])
@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "internvl"])
def test_an_answer_does_not_depend_on_when_a_stream_began(family: str, start: float) -> None:
    rows = []
    for first in (0.0, start):
        with small_vlm(family).stream(mmkv.CacheConfig(window_frames=6)) as stream:
            stream.feed(clip(16, seed=3), [first + 0.5 * i for i in range(16)])
            rows.append(stream.ask_iter(QUESTION, max_new_tokens=1)._generation.logits)
    assert torch.equal(*rows)
