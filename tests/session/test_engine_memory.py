"""A stream holds its window, the archive that it reports, and nothing that grows besides."""

from __future__ import annotations

import gc
import os
import tracemalloc
import weakref

import numpy as np
import psutil
import pytest
from small_models import FAMILIES, clip, small_vlm

import mmkv

CONFIG = mmkv.CacheConfig(window_frames=8, recent_frames=2, retrieve_frames=4, chunk_frames=4)
CLIP = clip(20)


def watch(stream: mmkv.Stream, start: int, stop: int) -> None:
    for at in range(start, stop, 20):
        stream.feed(CLIP, np.arange(20.0) + at)


def test_the_archive_grows_by_what_a_frame_holds_and_the_window_not_at_all() -> None:
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        watch(stream, 0, 100)
        early = stream.stats()
        watch(stream, 100, 600)
        late = stream.stats()
    assert late.window_bytes == early.window_bytes
    assert early.archive_bytes == 100 * early.bytes_per_frame
    assert late.archive_bytes == 600 * late.bytes_per_frame
    assert late.bytes_per_frame == 9 * 3 * 2 * 2 * 16 * 4  # tokens, layers, k and v, heads, size
    assert (late.frames, late.archived_frames, late.forgotten_frames) == (600, 600, 0)


def test_nothing_else_grows() -> None:
    process = psutil.Process(os.getpid())
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        watch(stream, 0, 200)
        gc.collect()
        tracemalloc.start()
        python, resident = tracemalloc.get_traced_memory()[0], process.memory_info().rss
        held = stream.stats().archive_bytes
        watch(stream, 200, 600)
        stream.ask("What?", max_new_tokens=2)
        gc.collect()
        python = tracemalloc.get_traced_memory()[0] - python
        tracemalloc.stop()
        held = stream.stats().archive_bytes - held
        resident = process.memory_info().rss - resident
    assert python < 400 * 4000  # what names a block: its layout, origin and times
    assert resident < held + 40e6


def test_an_archive_at_its_limit_stays_there() -> None:
    config = mmkv.CacheConfig(window_frames=4, recent_frames=2, retrieve_frames=4, max_ram="400KB")
    with small_vlm("llava_onevision").stream(config) as stream:
        for start in range(0, 300, 100):
            watch(stream, start, start + 100)
            stats = stream.stats()
            assert 400_000 - stats.bytes_per_frame < stats.archive_bytes <= 400_000
            assert stats.archived_frames + stats.forgotten_frames == start + 100


@pytest.mark.parametrize("family", FAMILIES)
def test_a_streams_rate_is_what_its_stats_foretell(family: str) -> None:
    vlm = small_vlm(family)
    with vlm.stream(CONFIG) as stream:
        watch(stream, 0, 40)
        stats = stream.stats()
    assert stats.fps == 1.0
    assert stats.tokens_per_frame * vlm.bytes_per_token == stats.bytes_per_frame
    assert stats.gb_per_hour == pytest.approx(stats.bytes_per_frame * 3600 / 1e9)


def test_a_stream_that_is_let_go_is_freed_at_once() -> None:
    gc.disable()
    try:
        stream = small_vlm("llava_onevision").stream(CONFIG)
        watch(stream, 0, 20)
        stream.chat().ask("What?", max_new_tokens=2)
        window = weakref.ref(stream._state.window)
        stream.close()
        del stream
        assert window() is None
    finally:
        gc.enable()


def test_a_question_holds_nothing_once_it_is_answered() -> None:
    gc.disable()
    try:
        with small_vlm("llava_onevision").stream(CONFIG) as stream:
            watch(stream, 0, 20)
            reply = stream.ask_iter("What?", max_new_tokens=2)
            held = weakref.ref(reply._generation.engine_pass)
            reply.finish()
            assert held() is None
    finally:
        gc.enable()
