"""Nothing compressed, everything retrieved: the answer is the plain transformers forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import EVERY, clip, small_vlm
from stock import QUESTION, Stock, teacher_forced

import mmkv


@pytest.mark.parametrize("recent", [0, 2, 6])
@pytest.mark.parametrize("family", EVERY)
def test_everything_retrieved_equals_plain_transformers(family: str, recent: int) -> None:
    vlm = small_vlm(family)
    frames, times = clip(14, seed=3), [0.5 * i for i in range(14)]
    config = mmkv.CacheConfig(
        window_frames=20, recent_frames=recent, retrieve_frames=50, chunk_frames=4
    )
    with vlm.stream(config) as stream:
        stream.feed(frames, times)
        rows, ids = teacher_forced(stream, 6)
    with torch.inference_mode():
        expected = Stock(vlm, frames, times).logits(QUESTION, ids)
    n = len(ids)
    for step, row in enumerate(rows[:n]):
        want = expected[-1 - n + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())
        assert row.argmax() == want.argmax()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_an_unpaired_last_frame_is_seen_padded(family: str) -> None:
    vlm = small_vlm(family)
    frames, times = clip(7, seed=4), [float(i) for i in range(7)]
    config = mmkv.CacheConfig(window_frames=20, recent_frames=4, retrieve_frames=50)
    with vlm.stream(config) as stream:
        stream.feed(frames, times)
        before = [layer.key.clone() for layer in stream._state.window.layers]
        rows, ids = teacher_forced(stream, 3)
        assert stream.ask(QUESTION, max_new_tokens=3).as_of == 6.0
        seen = stream._state.window.seen
        after = [layer.key[:, :, :seen] for layer in stream._state.window.layers]
        assert all(torch.equal(a[:, :, :seen], b) for a, b in zip(before, after, strict=True))
    padded = torch.cat([frames, frames[-1:]])
    with torch.inference_mode():
        expected = Stock(vlm, padded, [*times, 6.0]).logits(QUESTION, ids)
    for step, row in enumerate(rows[: len(ids)]):
        want = expected[-1 - len(ids) + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())


@pytest.mark.parametrize("family", EVERY)
def test_frames_name_every_block_when_all_are_chosen(family: str) -> None:
    vlm = small_vlm(family)
    with vlm.stream(mmkv.CacheConfig(recent_frames=2, retrieve_frames=64)) as stream:
        stream.feed(clip(12), np.arange(12.0))
        frames = stream.ask(QUESTION, max_new_tokens=1).frames
    blocks = 12 // vlm.adapter.temporal_patch
    assert len(frames) == blocks
    assert sorted(f.index for f in frames) == list(range(0, 12, vlm.adapter.temporal_patch))


def test_an_answer_that_outgrows_its_buffer_still_equals_plain_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmkv.answer.retrieval_pass._ROOM", 1)
    vlm = small_vlm("qwen3_vl")
    frames, times = clip(6, seed=5), [float(i) for i in range(6)]
    with vlm.stream(mmkv.CacheConfig(window_frames=16, retrieve_frames=8)) as stream:
        stream.feed(frames, times)
        rows, ids = teacher_forced(stream, 12)
    with torch.inference_mode():
        expected = Stock(vlm, frames, times).logits(QUESTION, ids)
    assert len(ids) == 12
    for step, row in enumerate(rows[:12]):
        want = expected[-1 - 12 + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())
