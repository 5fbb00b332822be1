"""Decoding ahead: bounded memory, errors that travel, threads that end."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from video_files import number_of, steady, write_video
from waiting import finish, until

from benchmarks.common import in_use
from mmkv.video import open_source
from mmkv.video.readahead import ReadAhead


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("mmkv")}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("ahead") / "clip.mp4", steady(400))


def counting(limit: int, size: int, made: list[int]) -> Iterator[tuple[float, np.ndarray]]:
    for index in range(limit):
        made.append(index)
        yield float(index), np.zeros(size, np.uint8)


@pytest.mark.parametrize(
    ("size", "most"),
    [(10, 8), (3 * 2**20, 8), (20 * 2**20, 3), (100 * 2**20, 1)],
    ids=["by-count", "by-count-3MB", "by-bytes", "one-huge"],
)
def test_queue_is_bounded_by_frames_and_by_bytes_but_holds_one(size: int, most: int) -> None:
    made: list[int] = []
    ahead = ReadAhead(lambda: counting(20, size, made), "test")
    until(lambda: len(made) == most + 1)
    # the last one made waits to be put; no other is made until somebody reads
    assert ahead.get() is not None
    until(lambda: len(made) == most + 2)
    ahead.close()
    finish(ahead._thread)


def test_an_error_arrives_after_the_frames_before_it() -> None:
    def broken() -> Iterator[tuple[float, np.ndarray]]:
        yield 0.0, np.zeros(1, np.uint8)
        yield 1.0, np.zeros(1, np.uint8)
        raise RuntimeError("the disk is gone")

    ahead = ReadAhead(broken, "test")
    assert [ahead.get()[0], ahead.get()[0]] == [0.0, 1.0]  # type: ignore[index]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        ahead.get()
    assert ahead.get() is None


def test_close_from_another_thread_frees_a_blocked_reader_at_once() -> None:
    hold = threading.Event()

    def stuck() -> Iterator[tuple[float, np.ndarray]]:
        yield 0.0, np.zeros((4, 4, 3), np.uint8)
        hold.wait()

    frames = open_source(stuck(), fps=None)
    got: list[float] = []
    reader = threading.Thread(target=lambda: got.extend(seconds for seconds, _ in frames))
    reader.start()
    until(lambda: got == [0.0])
    closing = threading.Thread(target=frames.close)
    closing.start()
    finish(reader)
    hold.set()
    finish(closing)
    frames.close()  # again: nothing happens
    assert list(frames) == []


@pytest.mark.parametrize("reader", ["pyav", "opencv", "decord"])
def test_stopping_early_ends_the_thread(clip: Path, reader: str) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    before = threads()
    with open_source(clip, fps=None, reader=reader) as frames:
        for _, frame in frames:
            if number_of(frame) == 3:
                break
    until(lambda: threads() <= before)


def test_a_forgotten_source_is_collected_and_its_thread_ends(clip: Path) -> None:
    before = threads()
    frames = open_source(clip, fps=None)
    next(iter(frames))
    assert threads() - before
    del frames
    gc.collect()
    until(lambda: threads() <= before)


def test_a_failed_opening_leaves_no_thread(tmp_path: Path) -> None:
    before = threads()
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError):
        open_source(tmp_path / "bad.mp4")
    until(lambda: threads() <= before)


def test_a_second_loop_goes_on_where_the_first_stopped(clip: Path) -> None:
    with open_source(clip, fps=None) as frames:
        for _, frame in frames:
            if number_of(frame) == 9:
                break
        _, frame = next(iter(frames))
        assert number_of(frame) == 10


def test_many_sources_opened_and_dropped_do_not_deadlock(clip: Path) -> None:
    before = threads()
    for turn in range(40):
        with open_source(clip, fps=None) as frames:
            for _ in range(turn % 4):
                next(iter(frames))
    until(lambda: threads() <= before)


def test_memory_stays_bounded_while_the_model_is_slow(tmp_path: Path) -> None:
    """400 frames of 720p are 1.1 GB; a slow reader must not make them pile up."""
    psutil = pytest.importorskip("psutil")
    image = np.full((720, 1280, 3), 90, np.uint8)
    path = write_video(
        tmp_path / "long.mp4",
        steady(400),
        size=(1280, 720),
        frames=[image] * 400,
        options={"preset": "ultrafast", "tune": "zerolatency"},
    )
    process = psutil.Process()
    start, before = process.memory_info().rss, sum(in_use())
    with open_source(path, fps=None) as frames:
        reading = iter(frames)
        for _ in range(5):
            next(reading)
        until(lambda: len(frames._ahead._waiting) >= 8)  # type: ignore[attr-defined]
        full, held = process.memory_info().rss, sum(in_use())
        most = held
        for _ in range(60):
            next(reading)
            time.sleep(0.005)
            most = max(most, sum(in_use()))
    assert full - start < 250 * 2**20  # the queue, the decoder, the allocator
    if before:  # the heaps keep pages that were freed: what is resident says less
        assert held - before > 8 * image.nbytes
        assert most < held + 8 * image.nbytes
