"""Ctrl-C at any moment: the stream is usable afterwards, for every thread, and right.

The faults: a turn was taken and given back by methods written in Python, so an interrupt between
locking and returning left the turn taken and other threads waiting forever; a slice of a page that
was being read by an interrupted question was waited for forever by the next; the mark that a
forward is the engine's could stay set; a close that was interrupted left the store locked.

Siblings, each tried here: `ask`, `encode`, `feed`, `flush`, `close`, `find`, a chat, `ask_every`,
`open` to read and to append, a question about a past that is on disk. A few moments each in every
run; 30 of `ask` and 30 of `encode`, and 10 of each of the others, among the slow tests.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from interrupts import interrupted, seconds_of
from small_models import clip, small_vlm
from waiting import by_itself, finish

import mmkv
from mmkv.engine import hooks
from mmkv.engine.fair_lock import FairLock

CONFIG = mmkv.CacheConfig(
    window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=2, max_ram="60KB"
)
VLM = small_vlm("llava_onevision")
CLIP = clip(24).numpy()
FEW, MANY = 4, 30


def moments(count: int, seed: int, work: Callable[[], object]) -> list[float]:
    """Random moments of something, seconds from its start."""
    took = min(seconds_of(work) for _ in range(2))
    rng = random.Random(seed)
    return [took * rng.random() for _ in range(count)]


def told(stream: mmkv.Stream, **options: Any) -> tuple[int, ...]:
    return stream.ask("What is it?", max_new_tokens=6, **options).token_ids


def usable_by_others(stream: mmkv.Stream, want: tuple[int, ...], **options: Any) -> None:
    """Another thread gets the right answer; this one's state is as ever."""

    def ask() -> None:
        assert told(stream, **options) == want

    assert not hooks._inside.get()
    assert not torch.is_inference_mode_enabled()
    by_itself(ask)
    assert told(stream, **options) == want


def stream_of(folder: Path | None, frames: int = 24) -> mmkv.Stream:
    stream = VLM.stream(CONFIG, store=folder)
    stream.feed(CLIP[:frames], np.arange(float(frames)))
    return stream


def counted(few: int = FEW, many: int = MANY) -> Any:
    slow = pytest.mark.slow
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=slow)])


@counted()
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "disk"])
def test_ask(count: int, stored: bool, tmp_path: Path) -> None:
    with stream_of(tmp_path / "kept" if stored else None) as stream:
        if stored:
            stream.flush()
        want, early = told(stream), told(stream, until=18.0)
        struck = 0
        for after in moments(count, 1, lambda: told(stream, until=18.0)):
            struck += interrupted(lambda: told(stream, until=18.0), after)
            usable_by_others(stream, want)
            usable_by_others(stream, early, until=18.0)
        assert struck
        assert stream.stats().frames == 24


@counted()
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "disk"])
def test_encode(count: int, stored: bool, tmp_path: Path) -> None:
    def encode(stream: mmkv.Stream, start: int = 0) -> None:
        pairs = zip(range(start, 24), CLIP[start:], strict=True)
        stream.encode(((float(i), frame) for i, frame in pairs), fps=None)

    def whole() -> None:
        with VLM.stream(CONFIG) as stream:
            encode(stream)

    with VLM.stream(CONFIG) as stream:
        encode(stream)
        want, kept = told(stream), stream.stats().archived_frames
        past = archived_kv(stream)
    struck = 0
    for number, after in enumerate(moments(count, 2, whole)):
        folder = tmp_path / str(number) if stored else None
        with VLM.stream(CONFIG, store=folder) as stream:
            struck += interrupted(lambda stream=stream: encode(stream), after)
            done = stream.stats().frames
            assert done == (0 if stream.seconds is None else stream.seconds + 1)
            if done < 24:
                encode(stream, done)
            if stored:
                stream.flush()
                assert stream.stats().archived_frames == 24
            else:
                assert stream.stats().archived_frames == kept
            got = archived_kv(stream)[:, :, :, -past.shape[3] :]
            assert torch.allclose(got, past, atol=1e-4)
            usable_by_others(stream, told(stream))
            if not stored:
                assert told(stream) == want
    assert struck


def find(stream: mmkv.Stream, folder: Path) -> None:
    stream.find("a man", until=18.0)


def flush(stream: mmkv.Stream, folder: Path) -> None:
    stream.feed(CLIP[:1], (stream.seconds or 0.0) + 1)
    stream.flush()


def feed(stream: mmkv.Stream, folder: Path) -> None:
    last = stream.seconds or 0.0
    stream.feed(CLIP[:6], np.arange(6.0) + last + 1)


def chat(stream: mmkv.Stream, folder: Path) -> None:
    talk = stream.chat()
    talk.ask("What is it?", max_new_tokens=3)
    talk.ask("And now?", max_new_tokens=3)
    assert len(talk.turns) == 2


def every(stream: mmkv.Stream, folder: Path) -> None:
    last = stream.seconds or 0.0
    with stream.ask_every("What is it?", 1.0, max_new_tokens=2) as answers:
        stream.feed(CLIP[:2], [last + 1, last + 2])
        next(answers)


def open_to_read(stream: mmkv.Stream, folder: Path) -> None:
    with VLM.open(folder) as reader:
        told(reader)


@counted(few=3, many=10)
@pytest.mark.parametrize("work", [find, flush, feed, chat, every, open_to_read])
def test_other_calls(work: Callable[[mmkv.Stream, Path], None], count: int, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with stream_of(folder) as stream:
        stream.flush()
        struck = 0
        for after in moments(count, 3, lambda: work(stream, folder)):
            struck += interrupted(lambda: work(stream, folder), after)
            usable_by_others(stream, told(stream))
            stream.feed(CLIP[:1], (stream.seconds or 0.0) + 1)
            stream.flush()
        frames, want = stream.stats().frames, told(stream)
    assert struck
    with VLM.open(folder) as again:  # everything is there, once
        assert again.stats().frames == again.stats().archived_frames == frames
        usable_by_others(again, want)


@counted(few=3, many=10)
@pytest.mark.parametrize("mode", ["new", "append"])
def test_close_and_open(mode: str, count: int, tmp_path: Path) -> None:
    def use(folder: Path) -> None:
        if mode == "append":
            with VLM.open(folder, mode="a") as stream:
                stream.feed(CLIP[:2], [(stream.seconds or 0) + 1, (stream.seconds or 0) + 2])
        else:
            stream_of(folder, 6).close()

    folders = iter(tmp_path / f"timed {number}" for number in range(2))
    stream_of(tmp_path / "first", 6).close()

    def timed() -> None:
        use(tmp_path / "first" if mode == "append" else next(folders))

    for number, after in enumerate(moments(count, 4, timed)):
        folder = tmp_path / ("first" if mode == "append" else f"new {number}")
        interrupted(lambda folder=folder: use(folder), after)
        if not (folder / "meta.json").exists():
            continue  # before there was a store
        with VLM.open(folder, mode="a") as stream:  # nobody holds its lock
            stream.feed(CLIP[:2], [(stream.seconds or 0) + 1, (stream.seconds or 0) + 2])
            usable_by_others(stream, told(stream))


def test_close_can_be_called_again_after_an_interrupt(tmp_path: Path) -> None:
    stream_of(tmp_path / "first").close()
    for number, after in enumerate(moments(FEW, 5, stream_of(tmp_path / "timed").close)):
        folder = tmp_path / str(number)
        stream = stream_of(folder)
        interrupted(stream.close, after)
        stream.close()
        assert stream.closed
        with VLM.open(folder, mode="a") as again:
            assert again.stats().frames == 24


@counted(few=300, many=20_000)
def test_turns(count: int) -> None:
    """Strikes a turn every time, which interrupts of whole questions seldom do."""
    turns, rng = FairLock(), random.Random(6)

    def work() -> None:
        for _ in range(50):
            with turns.hold():
                pass

    def other() -> None:
        with turns.hold():
            pass

    took = min(seconds_of(work) for _ in range(5))
    for _ in range(count):
        interrupted(work, took * rng.random())
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        finish(thread)


def test_an_interrupted_wait_does_not_forget_a_feed() -> None:
    """Python 3.11's `Thread.join` takes an interrupted thread for one that has ended."""
    more = threading.Event()

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        yield 0.0, CLIP[0]
        more.wait(60)
        yield 1.0, CLIP[1]

    with VLM.stream(CONFIG) as stream:
        feed = stream.start(frames(), fps=None)
        assert interrupted(feed.wait, 0.05)
        assert feed.running
        assert not feed.wait(0.0)
        more.set()
        assert feed.wait(60)
        assert stream.stats().frames == 2


def test_a_close_repeated_after_an_interrupt_waits_for_the_writing_thread(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "kept", 6)
    store = stream._state.store
    assert store is not None
    assert store.writer is not None
    go, done, close = threading.Event(), threading.Event(), store.writer.close

    def slow() -> None:
        go.wait(60)
        close()
        done.set()

    store.writer.close = slow  # type: ignore[method-assign]
    assert interrupted(stream.close, 1.0)
    threading.Timer(0.3, go.set).start()
    stream.close()
    assert done.is_set()
