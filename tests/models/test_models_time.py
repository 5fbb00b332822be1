"""Qwen3-VL frames carry their own time as text, wherever and whenever they are shown again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import blocks_kv
from small_models import clip, small_vlm

import mmkv

VLM = small_vlm("qwen3_vl")
CONFIG = mmkv.CacheConfig(window_frames=2, recent_frames=2, retrieve_frames=4)
TIMES = np.arange(28.0)
MOVED = 6  # the block whose time changes: frames 12 and 13


def watched(moved: float = 0.0) -> mmkv.Stream:
    """A stream of 28 frames; the times of frames 12 and 13 may be others, the pixels never."""
    times = TIMES.copy()
    times[12:14] += moved
    stream = VLM.stream(CONFIG)
    stream.feed(clip(28, seed=6), times)
    return stream


def logits(stream: mmkv.Stream, **options: Any) -> torch.Tensor:
    return stream.ask_iter("When was it?", max_new_tokens=1, **options)._generation.logits


def test_a_block_opens_with_the_time_between_its_frames() -> None:
    with watched() as stream:
        blocks = stream._state.archive.snapshot().blocks
    texts = [VLM.tokenizer.decode(list(b.layout.before)) for b in blocks]
    assert texts == [f"<{2 * i + 0.5:.1f} seconds><|vision_start|>" for i in range(14)]


def test_a_retrieved_block_brings_the_keys_of_its_time_text() -> None:
    with watched() as stream:
        reply = stream.ask_iter("When was it?", max_new_tokens=1)
        engine_pass, blocks = reply._generation.engine_pass, stream._state.archive.snapshot().blocks
        sinks = stream._state.window.sinks
        for layer, choice in enumerate(engine_pass.choices):
            chosen = [blocks[i] for i in choice.chosen]
            want = blocks_kv(stream, chosen)[layer, 1]  # the text's values included
            got = engine_pass.buffers.layers[layer].value[0, :, sinks : sinks + want.shape[1]]
            assert len(chosen) == 2
            assert torch.equal(got, want)


def test_the_answer_depends_on_the_time_of_a_retrieved_frame() -> None:
    with watched() as one, watched(moved=0.3) as other:
        span = {"since": 12.0, "until": 13.5}
        assert (logits(one, **span) - logits(other, **span)).abs().max() > 1e-2


def test_the_answer_depends_on_no_other_frames_time() -> None:
    # four windows further on no layer can have heard of it any more
    with watched() as one, watched(moved=0.3) as other:
        assert torch.equal(logits(one, since=22.0), logits(other, since=22.0))


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
def test_other_families_show_no_time_text(family: str) -> None:
    adapter = small_vlm(family).adapter
    layout = adapter.layout(adapter.grid(48, 64), [3.0, 3.5][: adapter.temporal_patch])
    assert (layout.before, layout.after) == ((), ())


def test_a_time_of_many_digits_still_fits() -> None:
    with VLM.stream(CONFIG) as stream:
        stream.feed(clip(4), [0.0, 0.1, 1e9, 1e9 + 1])
        assert stream.ask("When?", max_new_tokens=1).as_of == 1e9 + 1
        last = stream._state.archive.last
        assert last is not None
        assert last.tokens <= stream._state.window.chunk
