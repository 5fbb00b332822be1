"""One question, again and again, while a stream goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from waiting import until

import mmkv
from mmkv.video import FrameSource

BLACK = np.zeros((64, 64, 3), np.uint8)
ASK: dict[str, Any] = {"question": "What is there now?", "max_new_tokens": 1}


class Clip(FrameSource):
    """Frames a second apart; as a live source one every `pause` seconds of the clock."""

    def __init__(self, count: int | None, *, live: bool = False, pause: float = 0.0) -> None:
        self.count, self.live, self.pause = count, live, pause
        self.name = "clip"

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        number = 0
        while not self.closed and (self.count is None or number < self.count):
            time.sleep(self.pause)
            yield float(number), BLACK
            number += 1


class Held(Clip):
    """Gives nothing before `go`."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.go = threading.Event()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        self.go.wait()
        yield from super().__iter__()


class Torn(Clip):
    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        yield from super().__iter__()
        raise OSError("the cable was pulled")


@pytest.fixture(scope="module")
def vlm() -> mmkv.VideoLM:
    return mmkv.load("mmkv-tiny")


@pytest.fixture
def stream(vlm: mmkv.VideoLM) -> Iterator[mmkv.Stream]:
    with vlm.stream() as one:
        yield one


def test_every_moment_of_a_file_is_answered_from_what_came_before_it(stream: mmkv.Stream) -> None:
    stream.start(Clip(13), fps=None)
    answers = list(stream.ask_every(**ASK, seconds=4))
    assert [answer.as_of for answer in answers] == [4.0, 8.0, 12.0]


def test_what_comes_after_the_last_whole_interval_is_answered_at_the_end(
    stream: mmkv.Stream,
) -> None:
    stream.start(Clip(6), fps=None)
    assert [answer.as_of for answer in stream.ask_every(**ASK, seconds=4)] == [4.0, 5.0]


def test_a_file_shorter_than_the_interval_is_answered_once(stream: mmkv.Stream) -> None:
    stream.start(Clip(2), fps=None)
    assert [answer.as_of for answer in stream.ask_every(**ASK, seconds=60)] == [1.0]


def test_a_file_that_ended_long_ago_is_answered_too(stream: mmkv.Stream) -> None:
    stream.start(Clip(5), fps=None).wait()
    assert [answer.as_of for answer in stream.ask_every(**ASK, seconds=2)] == [2.0, 4.0]


def test_a_span_looks_back_no_further(stream: mmkv.Stream) -> None:
    stream.start(Clip(9), fps=None)
    for answer in stream.ask_every(**ASK, seconds=4, span=1.5):
        assert min(frame.seconds for frame in answer.frames) >= answer.as_of - 1.5


def test_a_live_source_ahead_of_the_model_makes_it_skip_and_count(
    stream: mmkv.Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = stream.ask_iter
    feed = stream.start(Clip(None, live=True, pause=0.02), fps=None)

    def slow(*arguments: Any, **options: Any) -> Any:
        seen = feed.encoded
        until(lambda: feed.encoded >= seen + 3)
        return ask(*arguments, **options)

    monkeypatch.setattr(stream, "ask_iter", slow)
    asking = stream.ask_every(**ASK, seconds=1)
    moments = [next(asking).as_of for _ in range(3)]
    asking.close()
    feed.stop()
    assert asking.skipped >= 2
    assert moments == sorted(set(moments))
    assert moments[-1] - moments[0] > 2


def test_close_from_another_thread_ends_it(stream: mmkv.Stream) -> None:
    stream.start(Clip(None, live=True, pause=0.05), fps=None)
    asking = stream.ask_every(**ASK, seconds=1000)
    threading.Timer(0.3, asking.close).start()
    assert list(asking) == []


def test_closing_the_stream_ends_it(vlm: mmkv.VideoLM) -> None:
    stream = vlm.stream()
    stream.feed(BLACK, 0.0)
    asking = stream.ask_every(**ASK, seconds=1000)
    threading.Timer(0.3, stream.close).start()
    assert list(asking) == []


def test_frames_that_are_fed_count_from_the_newest_one_on(stream: mmkv.Stream) -> None:
    stream.feed(np.stack([BLACK] * 3), [0.0, 1.0, 2.0])
    asking = stream.ask_every(**ASK, seconds=2)
    stream.feed(np.stack([BLACK] * 3), [3.0, 4.0, 5.0])
    assert next(asking).as_of == 4.0
    stream.feed(np.stack([BLACK] * 4), [6.0, 7.0, 8.0, 9.0])
    assert next(asking).as_of == 8.0
    assert asking.skipped == 1
    asking.close()


def test_frames_that_are_fed_to_an_empty_stream_count_from_the_first_one_looked_at(
    stream: mmkv.Stream,
) -> None:
    asking = stream.ask_every(**ASK, seconds=2)

    class Looked(threading.Event):
        """A frame comes after every look in vain."""

        def wait(self, timeout: float | None = None) -> bool:
            stream.feed(BLACK, float(stream.stats().frames))
            if stream.stats().frames > 9:
                self.set()  # whoever has answered nothing by now never will
            return super().wait(0)

    asking._closed = Looked()
    assert [next(asking).as_of, next(asking).as_of] == [2.0, 4.0]
    asking.close()


def test_moments_of_a_source_count_from_its_first_frame_whatever_was_there_before(
    stream: mmkv.Stream,
) -> None:
    stream.feed(np.stack([BLACK] * 3), [0.0, 1.0, 2.0])
    source = Held(5)
    stream.start(source, fps=1.0)
    asking = stream.ask_every(**ASK, seconds=2)

    class Looked(threading.Event):
        """The source begins once somebody looked for it in vain."""

        def wait(self, timeout: float | None = None) -> bool:
            source.go.set()
            return super().wait(timeout)

    asking._closed = Looked()
    assert [answer.as_of for answer in asking] == [5.0, 7.0]


def test_what_ended_the_source_is_raised_after_the_last_answer(stream: mmkv.Stream) -> None:
    stream.start(Torn(3), fps=None)
    asking = stream.ask_every(**ASK, seconds=2)
    assert next(asking).as_of == 2.0
    with pytest.raises(OSError, match="cable"):
        next(asking)


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"seconds": 1, "span": -1}, {"seconds": 1, "until": 3.0}]
)
def test_options_out_of_range_are_refused(stream: mmkv.Stream, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"seconds|span|until"):
        stream.ask_every("q", **wrong)


def test_repr_says_where_it_is(stream: mmkv.Stream) -> None:
    stream.start(Clip(3), fps=None)
    asking = stream.ask_every(**ASK, seconds=2)
    assert "no answer yet" in repr(asking)
    next(asking)
    assert "answered at 2.0 s" in repr(asking)


def test_a_moment_has_the_frame_at_it_whatever_sums_of_seconds_are_off_by(
    stream: mmkv.Stream,
) -> None:
    stream.feed(BLACK, 0.0)
    answers = stream.ask_every(**ASK, seconds=0.29)
    assert 100 * 0.29 < 29.0
    stream.feed(BLACK, 29.0)
    assert next(answers).as_of == 29.0
