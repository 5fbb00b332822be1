"""What fails half-way leaves a stream that goes on as if it had not been tried."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import archived_kv
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import FAMILIES, clip, small_vlm
from waiting import finish, until

import mmkv
from mmkv.engine.fair_lock import Cancelled, FairLock

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=2)


class Bomb:
    """A function that raises at its n-th call, then works again."""

    def __init__(self, inner: Any, calls: int, error: type[BaseException]) -> None:
        self.inner, self.calls, self.error = inner, calls, error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls -= 1
        if self.calls == 0:
            raise self.error
        return self.inner(*args, **kwargs)


def broken(
    monkeypatch: pytest.MonkeyPatch, vlm: mmkv.VideoLM, calls: int, error: type[BaseException]
) -> None:
    """Let the second layer of the language model fail at a later call."""
    mlp = vlm.adapter.language_model.layers[1].mlp
    monkeypatch.setattr(mlp, "forward", Bomb(mlp.forward, calls, error))


def encoded(family: str, seeds: list[tuple[int, int, float]]) -> torch.Tensor:
    """What a stream archives of clips given as (frames, seed, first time)."""
    with small_vlm(family).stream(CONFIG) as stream:
        for n, seed, start in seeds:
            stream.feed(clip(n, seed=seed), np.arange(float(n)) + start)
        return archived_kv(stream)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_chunk_that_fails_is_not_in_the_stream(
    family: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = small_vlm(family)
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(8), np.arange(8.0))
        with monkeypatch.context() as patch:
            broken(patch, vlm, 2, error)
            with pytest.raises(error):
                stream.feed(clip(6, seed=1), np.arange(8.0, 14.0))
        assert stream.stats().frames == 10
        assert stream.seconds == 9.0
        stream.feed(clip(6, seed=1)[2:], np.arange(10.0, 14.0))
        got = archived_kv(stream)
    want = encoded(family, [(8, 0, 0.0), (6, 1, 8.0)])
    assert torch.equal(got, want)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_first_chunk_that_fails_can_be_tried_again(
    family: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = small_vlm(family)
    with vlm.stream(CONFIG) as stream:
        with monkeypatch.context() as patch:
            broken(patch, vlm, calls, RuntimeError)  # in the prompt's opening, or in the frames
            with pytest.raises(RuntimeError):
                stream.feed(clip(2, seed=9, height=80), [3.0, 4.0])
        assert stream.stats().frames == 0
        stream.feed(clip(6), np.arange(6.0) + 1)
        got = archived_kv(stream)
    assert torch.equal(got, encoded(family, [(6, 0, 1.0)]))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_waiting_frame_survives_the_failure_of_its_partner(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = small_vlm(family)
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(5), np.arange(5.0))
        with monkeypatch.context() as patch:
            broken(patch, vlm, 1, RuntimeError)
            with pytest.raises(RuntimeError):
                stream.feed(clip(1, seed=9), 5.0)
        assert (stream.stats().frames, stream.seconds) == (5, 4.0)
        stream.feed(clip(6)[5:], 5.0)
        got = archived_kv(stream)
    assert torch.equal(got, encoded(family, [(6, 0, 0.0)]))


def test_a_waiting_frame_is_a_copy() -> None:
    frames = clip(6).numpy().copy()
    with small_vlm("qwen3_vl").stream(CONFIG) as stream:
        buffer = np.empty_like(frames[0])
        for i, frame in enumerate(frames):
            buffer[:] = frame
            stream.feed(buffer, float(i))
        got = archived_kv(stream)
    assert torch.allclose(got, encoded("qwen3_vl", [(6, 0, 0.0)]), atol=1e-5)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_question_that_fails_changes_nothing(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = small_vlm("qwen3_vl")
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(9), np.arange(9.0))
        before = stream.ask("What?", max_new_tokens=4).token_ids
        for calls in (1, 2, 3):
            with monkeypatch.context() as patch:
                broken(patch, vlm, calls, error)
                with pytest.raises(error):
                    stream.ask("What?", max_new_tokens=4)
        assert stream.ask("What?", max_new_tokens=4).token_ids == before
    assert vlm.adapter.language_model.config._attn_implementation == "sdpa"


def test_a_source_that_fails_leaves_what_was_read_before() -> None:
    def frames() -> Any:
        yield from zip(range(5), clip(5).numpy(), strict=True)
        raise OSError("the cable")

    with small_vlm("llava_onevision").stream(CONFIG) as stream:
        with pytest.raises(OSError, match="the cable"):
            stream.encode(frames(), fps=None)
        assert stream.stats().frames == 5


def test_turns_come_in_the_order_of_asking() -> None:
    turns, order, threads = FairLock(), [], []

    def work(i: int) -> None:
        with turns.hold():
            order.append(i)

    with turns.hold():
        for i in range(6):
            threads.append(threading.Thread(target=work, args=(i,)))
            threads[-1].start()
            until(lambda i=i: turns.waiting > i)
    finish(*threads)
    assert order == list(range(6))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=8))
@settings(max_examples=5, deadline=None)
def test_only_one_thread_has_the_turn(counts: list[int]) -> None:
    turns, inside, most = FairLock(), [], []

    def work(count: int) -> None:
        for _ in range(count):
            with turns.hold(), turns.hold():
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work, args=(c,)) for c in counts]
    for thread in threads:
        thread.start()
    finish(*threads)
    assert len(most) == sum(counts)
    assert max(most) == 1


def test_a_cancelled_wait_gives_its_place_up() -> None:
    turns, cancel, seen = FairLock(), threading.Event(), []

    def work() -> None:
        try:
            with turns.hold(cancel):
                seen.append("ran")
        except Cancelled:
            seen.append("cancelled")

    with turns.hold():
        thread = threading.Thread(target=work)
        thread.start()
        cancel.set()
        finish(thread)
    with turns.hold():
        seen.append("next")
    assert seen == ["cancelled", "next"]


def test_an_error_inside_a_turn_frees_it() -> None:
    turns = FairLock()
    with pytest.raises(KeyboardInterrupt), turns.hold(), turns.hold():
        raise KeyboardInterrupt
    assert turns._first() is None
    with turns.hold():
        assert turns.waiting == 0


def test_a_turn_that_was_never_given_back_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, ran = FairLock(), []

    def interrupted() -> None:
        with turns.hold():
            monkeypatch.setattr(turns, "_leave", Bomb(turns._leave, 1, KeyboardInterrupt))

    with contextlib.suppress(KeyboardInterrupt):
        interrupted()

    def work() -> None:
        with turns.hold():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    finish(thread)
    assert ran == [True]
