"""A source encoded in the background: it can be watched, waited for, stopped, and asked about."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from small_models import clip, small_vlm
from waiting import PATIENCE, by_itself, until

import mmkv
from mmkv.video import FrameSource

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=4)
VLM = small_vlm("llava_onevision")
CLIP = clip(12).numpy()


@pytest.fixture
def stream() -> Any:
    with VLM.stream(CONFIG) as opened:
        yield opened


class Camera(FrameSource):
    """Gives a frame whenever a test lets it, until it is closed."""

    name, live = "camera", True

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        for i in range(10_000):
            while not self.allowed.acquire(timeout=0.01):
                if self.closed:
                    return
            yield float(i), CLIP[i % 12]


def test_an_array_is_encoded_to_its_end(stream: mmkv.Stream) -> None:
    feed = stream.start(CLIP, fps=None)
    assert feed.wait(PATIENCE)
    assert (feed.encoded, feed.position, feed.running) == (12, 11.0, False)
    assert stream.stats().frames == 12


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl"])
def test_a_feed_encodes_what_encode_does(family: str) -> None:
    with small_vlm(family).stream(CONFIG) as one, small_vlm(family).stream(CONFIG) as other:
        assert one.start(CLIP, fps=None).wait(PATIENCE)
        done = other.encode(CLIP, fps=None)
        assert (done.frames, done.seconds) == (12, 11.0)
        assert torch.allclose(archived_kv(one), archived_kv(other), atol=1e-5)


def test_an_iterator_that_reuses_its_buffer_is_read_right(stream: mmkv.Stream) -> None:
    def frames() -> Iterator[Any]:
        buffer = np.empty_like(CLIP[0])
        for frame in CLIP:
            buffer[:] = frame
            yield buffer

    stream.encode(frames(), fps=None)
    with VLM.stream(CONFIG) as other:
        other.feed(CLIP, np.arange(12.0))
        assert torch.allclose(archived_kv(stream), archived_kv(other), atol=1e-5)


def test_a_folder_of_images_is_encoded(stream: mmkv.Stream, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for i, frame in enumerate(CLIP[:3]):
        image.fromarray(frame).save(tmp_path / f"{i}.png")
    feed = stream.start(str(tmp_path), fps=None)
    assert feed.wait(PATIENCE)
    assert stream.stats().frames == 3


def test_a_source_after_another_goes_on_in_time(stream: mmkv.Stream) -> None:
    stream.encode(CLIP, fps=1.0)
    stream.encode(CLIP[:4], fps=1.0)
    assert (stream.stats().frames, stream.seconds) == (16, 15.0)


def test_progress_is_told_after_every_chunk(stream: mmkv.Stream) -> None:
    told: list[mmkv.Progress] = []
    done = stream.encode(CLIP[:10], fps=None, on_progress=told.append)
    assert [p.frames for p in told] == [4, 8, 10]
    assert (done.frames, done.seconds) == (10, 9.0)


def test_a_progress_function_may_ask(stream: mmkv.Stream) -> None:
    seen: list[float] = []

    def ask(progress: mmkv.Progress) -> None:
        seen.append(stream.ask("What?", max_new_tokens=1).as_of)

    stream.encode(CLIP, fps=None, on_progress=ask)
    assert seen == [3.0, 7.0, 11.0]


def test_a_running_feed_can_be_asked_about(stream: mmkv.Stream) -> None:
    camera = Camera()
    feed = stream.start(camera, fps=None)
    for i in range(5):
        camera.allowed.release()
        until(lambda i=i: feed.position == float(i))
        assert stream.ask("What?", max_new_tokens=1).as_of == i
    assert feed.running
    assert feed.lag_seconds >= 0
    feed.stop()


def test_waiting_for_a_running_feed_gives_up_after_its_time(stream: mmkv.Stream) -> None:
    feed = stream.start(Camera(), fps=None)
    assert feed.wait(0.05) is False
    feed.stop()


def test_stopping_a_feed_that_waits_for_a_frame_takes_no_time(stream: mmkv.Stream) -> None:
    feed = stream.start(Camera(), fps=None)
    by_itself(feed.stop)
    until(lambda: not feed.running)  # a busy machine may take longer than `stop` waits
    assert feed.error is None
    assert feed.wait(0) is True


def test_what_a_stopped_feed_encoded_stays(stream: mmkv.Stream) -> None:
    camera = Camera()
    feed = stream.start(camera, fps=None)
    camera.allowed.release(3)
    until(lambda: feed.encoded == 3)
    feed.stop()
    assert stream.ask("What?", max_new_tokens=1).as_of == 2.0


def test_closing_the_stream_stops_its_feeds() -> None:
    stream = VLM.stream(CONFIG)
    feeds = [stream.start(Camera(), fps=None) for _ in range(2)]
    stream.close()
    until(lambda: not any(feed.running for feed in feeds))
    assert [feed.error for feed in feeds] == [None, None]


def test_a_source_that_fails_ends_the_feed_with_its_error(stream: mmkv.Stream) -> None:
    def frames() -> Iterator[Any]:
        yield from CLIP[:3]
        raise OSError("the cable")

    feed = stream.start(frames(), fps=None)
    with pytest.raises(OSError, match="the cable"):
        feed.wait(PATIENCE)
    assert isinstance(feed.error, OSError)
    assert (stream.stats().frames, feed.running) == (3, False)


def test_a_source_that_is_not_there_is_an_error_at_once(stream: mmkv.Stream) -> None:
    with pytest.raises((OSError, ValueError), match="missing"):
        stream.start("missing.mp4")


def test_frames_a_live_source_dropped_are_counted(stream: mmkv.Stream) -> None:
    camera = Camera()
    camera.dropped = 7
    feed = stream.start(camera, fps=None)
    assert feed.dropped == 7
    feed.stop()


def test_stats_can_be_read_while_frames_come(stream: mmkv.Stream) -> None:
    feed = stream.start(iter(clip(60).numpy()), fps=None)
    counts = []
    while feed.running:
        counts.append(stream.stats().frames)
        time.sleep(0.002)
    assert feed.wait(PATIENCE)
    assert counts == sorted(counts)
    assert stream.stats().frames == 60


def test_pushing_while_a_feed_runs_keeps_times_rising(stream: mmkv.Stream) -> None:
    camera = Camera()
    feed = stream.start(camera, fps=None)
    camera.allowed.release(2)
    until(lambda: feed.encoded == 2)
    stream.feed(CLIP[0], 100.0)
    camera.allowed.release()
    with pytest.raises(ValueError, match="times must rise"):
        feed.wait(PATIENCE)
    assert stream.seconds == 100.0
