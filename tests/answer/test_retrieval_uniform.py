"""`score="uniform"`, and `recent_frames` of a single question."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import mmkv

ASK = {"question": "What is there now?", "max_new_tokens": 1}


@pytest.fixture(scope="module")
def stream() -> Iterator[mmkv.Stream]:
    config = mmkv.CacheConfig(
        window_frames=8, recent_frames=2, retrieve_frames=5, score="uniform", landmarks=0
    )
    with mmkv.load("mmkv-tiny").stream(config) as one:
        one.feed(np.zeros((30, 64, 64, 3), np.uint8), [float(i) for i in range(30)])
        yield one


def frames(answer: mmkv.Answer) -> tuple[list[int], list[int]]:
    """What was retrieved, and what was recent."""
    retrieved = sorted(frame.index for frame in answer.frames if not frame.recent)
    return retrieved, sorted(frame.index for frame in answer.frames if frame.recent)


def test_frames_are_spread_evenly_before_the_recent_ones(stream: mmkv.Stream) -> None:
    assert frames(stream.ask(**ASK)) == ([0, 7, 14, 20, 27], [28, 29])


def test_they_are_spread_over_the_span_asked_about(stream: mmkv.Stream) -> None:
    assert frames(stream.ask(**ASK, since=10, until=20)) == ([10, 12, 14, 16, 18], [19, 20])


def test_a_short_span_is_shown_whole(stream: mmkv.Stream) -> None:
    assert frames(stream.ask(**ASK, since=20, until=24)) == ([20, 21, 22], [23, 24])


@pytest.mark.parametrize("recent", [0, 1, 8])
def test_a_question_may_have_its_own_number_of_recent_frames(
    stream: mmkv.Stream, recent: int
) -> None:
    retrieved, shown = frames(stream.ask(**ASK, recent_frames=recent))
    assert shown == list(range(30 - recent, 30))
    assert retrieved[0] == 0
    assert retrieved[-1] == 29 - recent


@pytest.mark.parametrize("wrong", [-1, 9, 2.0, True])
def test_another_number_is_refused(stream: mmkv.Stream, wrong: object) -> None:
    with pytest.raises(ValueError, match=rf"recent_frames={wrong!r} is not allowed"):
        stream.ask(**ASK, recent_frames=wrong)
