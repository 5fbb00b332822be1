"""A question looks at the stream and changes nothing in it; `since` and `until` are strict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from small_models import EVERY, FAMILIES, clip, small_vlm

import mmkv

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=4)
QUESTION = "Where was it?"


def state(stream: mmkv.Stream) -> list[Any]:
    """Everything of a stream that later frames or questions depend on."""
    ingest = stream._state
    window = ingest.window
    assert window is not None
    tokens = range(max(0, window.seen - window.local), window.seen)
    held = [window.read(i, tokens.start, tokens.stop) for i in range(len(window.layers))]
    sinks = [(layer.sink_key, layer.far_key, layer.sink_value) for layer in window.layers]
    past = ingest.archive.snapshot()
    layers = range(len(window.layers))
    summaries = [past.summaries(i, 0, len(past.blocks)).clone() for i in layers]
    waiting = [(seconds, frame.clone()) for seconds, frame in ingest.pending]
    carried = [] if window.carry is None else [t.clone() for t in window.carry.tensors()]
    counts = [window.seen, window.far_distance]
    return [held, sinks, archived_kv(stream), summaries, waiting, carried, counts]


def same(one: Any, other: Any) -> bool:
    """Equality to the last bit of nested lists of tensors."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def logits(stream: mmkv.Stream, question: str = QUESTION, **options: Any) -> torch.Tensor:
    """Logits of the first five tokens of an answer."""
    reply = stream.ask_iter(question, max_new_tokens=5, **options)
    rows = [
        reply._generation.logits,
        *(reply._generation.logits for _ in iter(reply._advance, False)),
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("n", [13, 14])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_changes_nothing_in_the_stream(family: str, n: int) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(n), np.arange(float(n)))
        before = state(stream)
        stream.ask(QUESTION, max_new_tokens=3)
        stream.ask(QUESTION, max_new_tokens=3, until=5.0)
        stream.chat().ask(QUESTION, max_new_tokens=3, temperature=1.0)
        next(stream.ask_iter(QUESTION, max_new_tokens=3), None)
        assert same(before, state(stream))


@pytest.mark.parametrize("n", [9, 12])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_that_was_asked_goes_on_as_one_that_was_not(family: str, n: int) -> None:
    states = []
    for ask in (True, False):
        with small_vlm(family).stream(CONFIG) as stream:
            stream.feed(clip(n), np.arange(float(n)))
            if ask:
                stream.ask(QUESTION, max_new_tokens=3)
            stream.feed(clip(8, seed=1), np.arange(20.0, 28.0))
            states.append(state(stream))
    assert same(*states)


@pytest.mark.parametrize("n", [9, 12])
@pytest.mark.parametrize("family", FAMILIES)
def test_frames_that_come_during_an_answer_do_not_change_it(family: str, n: int) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(n), np.arange(float(n)))
        alone = stream.ask(QUESTION, max_new_tokens=12)
        reply = stream.ask_iter(QUESTION, max_new_tokens=12)
        for i, _ in enumerate(iter(reply._advance, False)):
            stream.feed(clip(4, seed=i), np.arange(4.0) + 100 * (i + 1))
        assert reply.answer.token_ids == alone.token_ids
        assert reply.answer.as_of == n - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_question_twice_has_the_same_logits(family: str) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(13), np.arange(13.0))
        assert torch.equal(logits(stream), logits(stream))


@pytest.mark.parametrize("ended", [8, 12])
@pytest.mark.parametrize("family", EVERY)
def test_until_answers_like_a_stream_that_ended_there(family: str, ended: int) -> None:
    frames = clip(24, seed=8)
    with small_vlm(family).stream(CONFIG) as short, small_vlm(family).stream(CONFIG) as long:
        short.feed(frames[:ended], np.arange(float(ended)))
        long.feed(frames, np.arange(24.0))
        want, got = logits(short), logits(long, until=ended - 1.0)
        assert (want - got).abs().max() <= 1e-4 * want.abs().max()
        assert long.ask(QUESTION, until=ended - 1.0, max_new_tokens=1).as_of == ended - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_no_frame_after_until_has_any_influence(family: str) -> None:
    rows = []
    for seed in (1, 2):  # two futures
        with small_vlm(family).stream(CONFIG) as stream:
            stream.feed(clip(10), np.arange(10.0))
            stream.feed(clip(9, seed=seed), np.arange(10.0, 19.0))
            rows.append(logits(stream, until=9.0))
    assert torch.equal(*rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_frames_between_since_and_until_are_used(family: str) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(24), np.arange(24.0))
        answer = stream.ask(QUESTION, since=6.0, until=15.0, max_new_tokens=1)
    assert {f.seconds for f in answer.frames} <= set(map(float, range(6, 16)))
    assert answer.as_of == 15.0


def test_since_alone_reaches_the_newest_frame() -> None:
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        stream.feed(clip(24), np.arange(24.0))
        answer = stream.ask(QUESTION, since=21.0, max_new_tokens=1)
    assert sorted(f.seconds for f in answer.frames) == [21.0, 22.0, 23.0]


def test_until_leaves_a_waiting_frame_out() -> None:
    with small_vlm("qwen3_vl").stream(CONFIG) as stream:
        stream.feed(clip(9), np.arange(9.0))
        assert stream.ask(QUESTION, until=7.5, max_new_tokens=1).as_of == 7.0
        assert stream.ask(QUESTION, until=8.0, max_new_tokens=1).as_of == 8.0


def test_an_empty_span_says_what_the_stream_holds() -> None:
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        stream.feed(clip(4), [1.0, 2.0, 3.0, 4.0])
        with pytest.raises(ValueError, match=r"since=7 and until=9.*1\.00 s to 4\.00 s"):
            stream.ask(QUESTION, since=7, until=9)


@pytest.mark.parametrize("option", ["since", "until"])
def test_a_span_that_is_no_time_is_refused(option: str) -> None:
    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        stream.feed(clip(1), 0.0)
        with pytest.raises(ValueError, match=f"{option}='noon'"):
            stream.ask(QUESTION, **{option: "noon"})


@pytest.mark.parametrize("family", FAMILIES)
def test_asking_an_empty_stream_says_so(family: str) -> None:
    with (
        small_vlm(family).stream(CONFIG) as stream,
        pytest.raises(ValueError, match="no frames yet"),
    ):
        stream.ask(QUESTION)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_frame_alone_can_be_asked_about(family: str) -> None:
    with small_vlm(family).stream(CONFIG) as stream:
        stream.feed(clip(1), 2.0)
        answer = stream.ask(QUESTION, max_new_tokens=2)
        assert answer.as_of == 2.0
        assert [f.recent for f in answer.frames] == [True]


def test_without_retrieval_a_question_sees_the_window_only() -> None:
    config = mmkv.CacheConfig(window_frames=5, recent_frames=0, retrieve_frames=0)
    with small_vlm("llava_onevision").stream(config) as stream:
        stream.feed(clip(15), np.arange(15.0))
        answer = stream.ask(QUESTION, max_new_tokens=1)
    assert sorted(f.seconds for f in answer.frames) == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert all(f.recent for f in answer.frames)
