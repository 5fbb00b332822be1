"""Many threads on one stream: every call returns what one thread would get, or one clear error.

Siblings, each tried here: questions from 8 threads while frames are fed; the stream closed in the
middle of questions and feeds, and by two threads at once; a user's iterator, callback or source
that fails or gives wrong frames half-way; an unfinished reply that is collected; counters read
during the close.
"""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import clip, small_vlm
from waiting import finish, until

import mmkv
from mmkv.engine import hooks
from mmkv.session.stats import Stats
from mmkv.video import FrameSource

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=2)
VLM = small_vlm("llava_onevision")
CLIP = clip(40).numpy()


def stream_of(frames: int, folder: Path | None = None) -> mmkv.Stream:
    stream = VLM.stream(CONFIG, store=folder)
    if frames:
        stream.feed(CLIP[:frames], np.arange(float(frames)))
    return stream


def told(stream: mmkv.Stream, **options: Any) -> tuple[int, ...]:
    return stream.ask("What is it?", max_new_tokens=4, **options).token_ids


def started(*works: Callable[[], object]) -> tuple[list[threading.Thread], list[Any]]:
    """A thread for each, and what each returned or raised."""
    results: list[Any] = [None] * len(works)

    def run(place: int) -> None:
        try:
            results[place] = works[place]()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(works))]
    for thread in threads:
        thread.start()
    return threads, results


def test_eight_threads_are_told_what_one_is_while_frames_come() -> None:
    with stream_of(24) as stream:
        spans = [6.0, 11.0, 17.0, 22.0]
        want = {span: told(stream, until=span) for span in spans}
    with stream_of(24) as stream:
        wrong: list[Any] = []

        def ask(number: int) -> None:
            for turn in range(4):
                span = spans[(number + turn) % 4]
                if (got := told(stream, until=span)) != want[span]:
                    wrong.append((span, got))

        def feed() -> None:
            for at in range(24, 40):
                stream.feed(CLIP[at], float(at))

        threads, results = started(feed, *(lambda n=n: ask(n) for n in range(8)))
        finish(*threads)
        assert results == [None] * 9
        assert not wrong
        assert stream.stats().frames == 40


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
def test_a_stream_closed_in_the_middle_hangs_nobody(
    delay: float, stored: bool, tmp_path: Path
) -> None:
    stream = stream_of(12, tmp_path / "kept" if stored else None)
    begun = threading.Barrier(9)
    counted: list[Stats] = []

    def until_closed(work: Callable[[int], object]) -> Callable[[], object]:
        def run() -> None:
            begun.wait()
            for turn in itertools.count():
                work(turn)

        return run

    def count(turn: int) -> None:
        counted.append(stream.stats())
        repr(stream)
        if stream.closed:
            raise ValueError("the stream is closed")

    threads, results = started(
        *(until_closed(lambda turn: told(stream)) for _ in range(3)),
        until_closed(lambda turn: stream.feed(CLIP[0], 100.0 + turn)),
        until_closed(lambda turn: stream.find("a man")),
        until_closed(lambda turn: stream.flush()),
        until_closed(count),
        until_closed(count),
    )
    begun.wait()
    threading.Event().wait(delay)
    closers, closed = started(*[stream.close] * 2)
    finish(*closers, *threads)
    assert closed == [None, None]
    for result in results:
        assert isinstance(result, ValueError)
        assert "the stream is closed" in str(result)
    frames = [stats.frames for stats in counted]
    assert frames == sorted(frames) or len(threads) > 7  # two threads add to the list
    assert stream.stats().frames == max(frames)
    if stored:
        with VLM.open(tmp_path / "kept") as again:
            assert again.stats().frames == stream.stats().frames


def test_a_feed_ends_when_the_stream_is_closed_by_another_thread() -> None:
    stream = stream_of(0)
    feed = stream.start((frame for _ in range(1000) for frame in CLIP), fps=None)
    until(lambda: feed.encoded > 3)
    threads, results = started(*[stream.close] * 3)
    finish(*threads)
    assert results == [None] * 3
    until(lambda: not feed.running)
    assert feed.error is None
    assert stream.stats().frames == feed.encoded


def failing(kind: str) -> Any:
    """Four frames, then something wrong."""

    def plain() -> Iterator[Any]:
        yield from CLIP[:4]
        if kind == "raises":
            raise OSError("the cable")
        yield {
            "two dimensions": CLIP[0][:, :, 0],
            "floats": CLIP[0].astype(np.float64),
            "four channels": np.zeros((48, 64, 4), np.uint8),
            "no frame": "not a frame",
            "nothing": None,
        }[kind]

    class Own(FrameSource):
        name = "own"

        def __iter__(self) -> Iterator[Any]:
            yield from ((float(i), frame) for i, frame in enumerate(plain()))

    return plain, Own


KINDS = ["raises", "two dimensions", "floats", "four channels", "no frame", "nothing"]


@pytest.mark.parametrize("own", [False, True], ids=["iterator", "source"])
@pytest.mark.parametrize("background", [False, True], ids=["encode", "start"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_goes_wrong_leaves_what_came_before(
    kind: str, background: bool, own: bool
) -> None:
    made = failing(kind)[own]()
    with stream_of(0) as stream:
        watch = stream.start(made, fps=None).wait if background else stream.encode
        with pytest.raises((ValueError, OSError)) as caught:
            watch(**({} if background else {"source": made, "fps": None}))
        assert len(str(caught.value)) > 5
        assert (stream.stats().frames, stream.seconds) == (4, 3.0)
        stream.feed(CLIP[4:8], np.arange(4.0) + 4)
        got = told(stream)
    with stream_of(8) as stream:
        assert told(stream) == got


def test_a_callback_that_raises_stops_the_encoding_and_nothing_else() -> None:
    def tell(progress: mmkv.Progress) -> None:
        if progress.frames == 6:
            raise RuntimeError("no more")

    with stream_of(0) as stream:
        with pytest.raises(RuntimeError, match="no more"):
            stream.encode(iter(CLIP), fps=None, on_progress=tell)
        assert stream.stats().frames == 6
        stream.feed(CLIP[6:8], [6.0, 7.0])
        got = told(stream)
    with stream_of(8) as stream:
        assert told(stream) == got


def test_an_unfinished_reply_that_is_collected_leaves_the_stream_as_it_was() -> None:
    with stream_of(12) as stream:
        want = told(stream)
        for steps in range(3):
            reply = stream.ask_iter("What is it?", max_new_tokens=6)
            for _ in range(steps):
                next(reply, None)
            cycle = [reply]
            cycle.append(cycle)  # type: ignore[arg-type]
            del reply, cycle
            gc.collect()
            assert told(stream) == want
    assert VLM.adapter.language_model not in hooks._attached


def test_two_threads_may_step_and_close_one_reply() -> None:
    with stream_of(12) as stream:
        for _ in range(5):
            reply = stream.ask_iter("What is it?", max_new_tokens=8)
            threads, results = started(reply.finish, reply.finish, reply.close)
            finish(*threads)
            assert not [one for one in results if isinstance(one, Exception)]
            assert reply.answer.finish_reason in ("cancelled", "length", "stop")
