"""A closed stream holds nothing open, even while the object itself is held.

The fault: after `close()` of a stream with a store, two descriptors per segment (32 to 40 of them
under a limit) and the memory of its pages stayed until the object was dropped. Its siblings, each
tried here: a store with several segments, one opened again to read or to append, a store that
failed to be written, a source in the background (array, iterator, file, camera that stalls or
breaks off), an iterator that fails, replies that were not finished, questions about the store, an
opened store refused, captions. Besides descriptors: threads, the store's lock, the memory of pages.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from caption_clips import scenes, write_clip
from small_models import clip, small_vlm
from video_servers import Camera, Mute
from waiting import until

import mmkv
from mmkv.demos.captioning import caption
from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.video import Reconnect, open_source

CONFIG = mmkv.CacheConfig(
    window_frames=6,
    recent_frames=2,
    retrieve_frames=4,
    chunk_frames=4,
    max_disk="600KB",
    max_ram="200KB",
)
VLM = small_vlm("llava_onevision")
CLIP = clip(40).numpy()


def descriptors() -> int:
    return psutil.Process().num_fds()


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("mmkv")]


def watched(folder: Path | None, count: int = 80, start: int = 0) -> mmkv.Stream:
    stream = VLM.stream(CONFIG, store=folder)
    for at in range(start, start + count, 40):
        stream.feed(CLIP, np.arange(40.0) + at)
    return stream


def several_segments(folder: Path) -> mmkv.Stream:
    stream = watched(folder)
    stream.flush()
    assert len(list(folder.glob("*.data"))) >= 6
    stream.ask("What?", until=60.0, max_new_tokens=2)
    return stream


def reading(folder: Path) -> mmkv.Stream:
    watched(folder).close()
    stream = VLM.open(folder)
    stream.ask("What?", max_new_tokens=2)
    stream.find("a man")
    return stream


def appending(folder: Path) -> mmkv.Stream:
    watched(folder).close()
    stream = VLM.open(folder, mode="a")
    stream.feed(CLIP, np.arange(40.0) + 300)
    return stream


def reading_what_is_written(folder: Path) -> mmkv.Stream:
    with watched(folder) as writer:
        stream = VLM.open(folder)
        writer.feed(CLIP, np.arange(40.0) + 300)
        writer.flush()
        stream.ask("What?", max_new_tokens=2)
    return stream


def an_unfinished_reply(folder: Path) -> mmkv.Stream:
    stream = watched(folder)
    reply = stream.ask_iter("What?", max_new_tokens=8)
    next(reply, None)
    del reply
    return stream


def an_iterator_that_fails(folder: Path) -> mmkv.Stream:
    def frames() -> Iterator[Any]:
        yield from CLIP
        raise OSError("the cable")

    stream = VLM.stream(CONFIG, store=folder)
    with pytest.raises(OSError, match="the cable"):
        stream.encode(frames(), fps=None)
    return stream


def a_file_in_the_background(folder: Path) -> mmkv.Stream:
    stream = VLM.stream(CONFIG, store=folder)
    feed = stream.start(SAMPLE_VIDEO, fps=1.0)
    until(lambda: feed.encoded > 8)
    return stream


def a_full_disk(folder: Path) -> mmkv.Stream:
    stream = watched(folder)
    stream.flush()
    writer = stream._state.store.writer  # type: ignore[union-attr]

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    writer.write = full  # type: ignore[union-attr, method-assign]
    stream.feed(CLIP[:2], [400.0, 401.0])
    with pytest.raises(OSError, match="No space"):
        stream.flush()
    return stream


CASES = [
    several_segments, reading, appending, reading_what_is_written, an_unfinished_reply,
    an_iterator_that_fails, a_file_in_the_background, a_full_disk,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_nothing_stays_open(case: Callable[[Path], mmkv.Stream], tmp_path: Path) -> None:
    watched(tmp_path / "before", 40).close()  # what opens once and for all
    gc.collect()
    before, running = descriptors(), threads()
    stream = case(tmp_path / "kept")
    if case is a_full_disk:
        with pytest.raises(OSError):
            stream.close()
    else:
        stream.close()
    until(lambda: threads() == running)
    gc.collect()
    assert descriptors() == before
    again = VLM.open(tmp_path / "kept", mode="a")  # nobody has its lock
    again.close()
    assert stream.closed


@pytest.mark.parametrize("way", ["stalls", "breaks off"])
def test_a_camera_is_let_go(way: str, tmp_path: Path) -> None:
    def answer(handler: Any, visit: int) -> None:
        if visit == 0:
            camera.show(handler, 0, 4)
        if way == "stalls":
            camera.stopping.wait(30)

    gc.collect()
    before, running = descriptors(), threads()
    with Camera(answer) as camera:
        address = f"http://127.0.0.1:{camera.port}/"
        policy = Reconnect(first_wait=0.02, max_wait=0.05)
        stream = VLM.stream(CONFIG, store=tmp_path / "kept")
        source = open_source(address, fps=None, live=True, timeout=0.3, reconnect=policy)
        feed = stream.start(source, fps=None)
        until(lambda: len(camera.visits) > (2 if way == "breaks off" else 1))
        stream.close()
    until(lambda: threads() == running)
    gc.collect()
    until(lambda: descriptors() <= before, 10)
    assert feed.error is None


def test_an_address_that_never_answers_leaves_nothing(tmp_path: Path) -> None:
    gc.collect()
    before, running = descriptors(), threads()
    with Mute() as server, VLM.stream(CONFIG, store=tmp_path / "kept") as stream:
        source = f"http://127.0.0.1:{server.port}/"
        with pytest.raises(ValueError):
            stream.encode(open_source(source, live=True, timeout=0.3))
    until(lambda: threads() == running)
    gc.collect()
    assert descriptors() == before


def test_captions_leave_nothing_open(tmp_path: Path) -> None:
    tiny = mmkv.load("mmkv-tiny")
    video = write_clip(tmp_path / "a.mp4", scenes(20, 3))
    caption(tiny, video)
    gc.collect()
    before, running = descriptors(), threads()
    caption(tiny, video)
    with pytest.raises((ValueError, OSError)):
        caption(tiny, tmp_path / "missing.mp4")
    until(lambda: threads() == running)
    assert descriptors() == before


def test_an_answer_under_way_is_finished_from_what_was_there(tmp_path: Path) -> None:
    stream = watched(tmp_path / "kept")
    wanted = stream.ask("What?", max_new_tokens=8).token_ids
    reply = stream.ask_iter("What?", max_new_tokens=8)
    stream.close()
    assert reply.finish().token_ids == wanted
    gc.collect()
    assert not any(os.fspath(tmp_path) in file.path for file in psutil.Process().open_files())


def test_a_closed_stream_still_says_what_it_was(tmp_path: Path) -> None:
    stream = watched(tmp_path / "kept")
    stream.flush()
    before = stream.stats()
    stream.close()
    after = stream.stats()
    assert (after.frames, after.seconds, stream.seconds) == (80, 79.0, 79.0)
    assert (after.disk_bytes, after.bits_per_element) == (
        before.disk_bytes,
        before.bits_per_element,
    )
    assert "80 frames to 79.0 s, closed" in repr(stream)


@pytest.mark.parametrize("stored", [False, True])
def test_the_past_leaves_memory_when_the_stream_is_closed(stored: bool, tmp_path: Path) -> None:
    stream = watched(tmp_path / "kept" if stored else None)
    pages, blocks = stream._state.archive._pages.copy(), stream._state.archive.snapshot().blocks
    assert any(page.payload is not None for page in pages) or any(b.kv is not None for b in blocks)
    del pages, blocks
    stream.close()
    archive = stream._state.archive
    assert archive.nbytes == archive.index_bytes == 0
    assert not archive._pages.copy()
    assert archive._payloads._slab is stream._state.frame_encoder._slabs._slab is None
