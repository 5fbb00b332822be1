"""Sessions share a model without touching each other, or a plain forward beside them."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
import torch
from small_models import EVERY, FAMILIES, clip, small_vlm
from waiting import finish

import mmkv
from mmkv.engine import hooks

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4, chunk_frames=4)


def restored(vlm: mmkv.VideoLM) -> bool:
    """Whether the model is as transformers made it."""
    language_model = vlm.adapter.language_model
    return (
        language_model.config._attn_implementation == "sdpa"
        and "forward" not in vars(language_model.rotary_emb)
        and language_model not in hooks._attached
    )


def plain(vlm: mmkv.VideoLM) -> torch.Tensor:
    """Logits of a plain transformers forward over a text."""
    ids = torch.tensor([vlm.tokenizer("A plain forward, padded left.").input_ids] * 2)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    with torch.inference_mode():
        return vlm.model(input_ids=ids, attention_mask=mask).logits


def watch(vlm: mmkv.VideoLM, seed: int) -> list[tuple[int, ...]]:
    """A session of its own: frames and questions in turn."""
    answers = []
    with vlm.stream(CONFIG) as stream:
        for i in range(4):
            stream.feed(clip(5, seed=10 * seed + i), np.arange(5.0) + 5 * i)
            answers.append(stream.ask(f"What, {seed}?", max_new_tokens=4).token_ids)
    return answers


def together(*works: Any) -> list[Any]:
    """Results of functions that run in a thread each, started at one moment."""
    results: list[Any] = [None] * len(works)
    ready = threading.Barrier(len(works))

    def run(i: int) -> None:
        ready.wait()
        try:
            results[i] = works[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    finish(*threads)
    return results


@pytest.mark.parametrize("family", FAMILIES)
def test_two_sessions_in_two_threads_answer_as_each_alone(family: str) -> None:
    vlm = small_vlm(family)
    alone = [watch(vlm, 1), watch(vlm, 2)]
    assert together(lambda: watch(vlm, 1), lambda: watch(vlm, 2)) == alone


@pytest.mark.parametrize("family", EVERY)
def test_a_plain_forward_beside_sessions_is_untouched(family: str) -> None:
    vlm = small_vlm(family)
    before = plain(vlm)
    rows = together(
        lambda: watch(vlm, 1), lambda: watch(vlm, 2), lambda: [plain(vlm) for _ in range(30)]
    )[2]
    assert all(torch.equal(row, before) for row in rows)


def test_sessions_opened_and_closed_in_many_threads_leave_the_model_as_it_was() -> None:
    vlm = small_vlm("llava_onevision")
    before = plain(vlm)

    def churn() -> None:
        for _ in range(40):
            vlm.stream(CONFIG).close()

    rows = together(churn, churn, churn, lambda: [plain(vlm) for _ in range(30)])[3]
    assert all(torch.equal(row, before) for row in rows)
    assert restored(vlm)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_session_to_close_leaves_a_plain_model(family: str) -> None:
    vlm = small_vlm(family)
    before = plain(vlm)
    one, two = vlm.stream(CONFIG), vlm.stream(CONFIG)
    one.feed(clip(4), np.arange(4.0))
    one.close()
    one.close()
    assert not restored(vlm)
    two.close()
    assert restored(vlm)
    assert torch.equal(plain(vlm), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_generate_works_beside_a_session_and_after_it(family: str) -> None:
    vlm = small_vlm(family)
    ids = torch.tensor([vlm.tokenizer("Once").input_ids])
    before = vlm.model.generate(ids, max_new_tokens=4, do_sample=False)
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(4), np.arange(4.0))
        assert torch.equal(vlm.model.generate(ids, max_new_tokens=4, do_sample=False), before)
    assert torch.equal(vlm.model.generate(ids, max_new_tokens=4, do_sample=False), before)


def test_a_session_that_fails_leaves_a_plain_model() -> None:
    vlm = small_vlm("llava_onevision")

    def fail() -> None:
        with vlm.stream(CONFIG) as stream:
            stream.feed(clip(4), np.arange(4.0))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert restored(vlm)


def test_a_forgotten_session_leaves_a_plain_model() -> None:
    vlm = small_vlm("llava_onevision")
    stream = vlm.stream(CONFIG)
    stream.feed(clip(4), np.arange(4.0))
    del stream
    gc.collect()
    assert restored(vlm)


def test_a_forgotten_reply_leaves_a_plain_model_without_the_garbage_collector() -> None:
    vlm = small_vlm("llava_onevision")
    gc.disable()
    try:
        with vlm.stream(CONFIG) as stream:
            stream.feed(clip(4), np.arange(4.0))
            replies = [stream.ask_iter("What?", max_new_tokens=9) for _ in range(2)]
            next(replies[0])
        assert not restored(vlm)
        del replies
        assert restored(vlm)
    finally:
        gc.enable()


@pytest.mark.parametrize("steps", [0, 2])
def test_a_closed_reply_leaves_a_plain_model(steps: int) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(4), np.arange(4.0))
        reply = stream.ask_iter("What?", max_new_tokens=9)
    for _ in range(steps):
        reply._advance()
    assert not restored(vlm)
    reply.close()
    assert restored(vlm)


def test_an_answer_under_way_survives_the_close_of_its_stream() -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(9), np.arange(9.0))
        alone = stream.ask("What?", max_new_tokens=9)
        reply = stream.ask_iter("What?", max_new_tokens=9)
    assert reply.finish().token_ids == alone.token_ids
    assert restored(vlm)


def test_a_finalizer_that_runs_inside_attach_does_not_deadlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm = small_vlm("llava_onevision")
    forgotten = [vlm.stream(CONFIG)]
    inside = hooks._attach

    def collects(language_model: Any, user: object) -> None:
        forgotten.clear()  # as a garbage collection at this point would
        inside(language_model, user)

    monkeypatch.setattr(hooks, "_attach", collects)

    def work() -> bool:
        with vlm.stream(CONFIG) as stream:
            stream.feed(clip(4), np.arange(4.0))
            return stream.ask("What?", max_new_tokens=1).as_of == 3.0

    assert together(work) == [True]
    assert restored(vlm)


@pytest.mark.parametrize("after", ["_attach", "_detach_abandoned"])
def test_an_interrupt_while_a_session_opens_leaves_the_model_as_it_was(
    after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(CONFIG) as stream:
        stream.feed(clip(4), np.arange(4.0))
        held = set(hooks._attached[vlm.adapter.language_model].users)
        inner = getattr(hooks, after)

        def interrupted(*args: Any) -> None:
            inner(*args)
            monkeypatch.undo()  # once
            raise KeyboardInterrupt

        monkeypatch.setattr(hooks, after, interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.ask("What?")
        gc.collect()
        assert hooks._attached[vlm.adapter.language_model].users == held
    assert restored(vlm)


def test_a_model_in_use_can_be_saved(tmp_path: Any) -> None:
    vlm = small_vlm("llava_onevision")
    with vlm.stream(CONFIG):
        vlm.model.save_pretrained(tmp_path)
    assert '"mmkv"' not in (tmp_path / "config.json").read_text()


def test_a_closed_stream_says_so() -> None:
    stream = small_vlm("llava_onevision").stream(CONFIG)
    stream.feed(clip(1), 0.0)
    stream.close()
    for use in (
        lambda: stream.ask("What?"),
        lambda: stream.feed(clip(1), 1.0),
        lambda: stream.start(clip(1).numpy()),
        lambda: stream.encode(clip(1).numpy()),
    ):
        with pytest.raises(ValueError, match="the stream is closed"):
            use()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_forward_beside_a_session_keeps_the_attention_it_was_loaded_with(
    family: str,
) -> None:
    vlm = small_vlm(family)
    language_model = vlm.adapter.language_model
    language_model.set_attn_implementation("eager")
    try:
        before = plain(vlm)
        with vlm.stream(CONFIG) as stream:
            stream.feed(clip(4), np.arange(4.0))
            assert torch.equal(plain(vlm), before)
        assert language_model.config._attn_implementation == "eager"
        assert torch.equal(plain(vlm), before)
    finally:
        language_model.set_attn_implementation("sdpa")
    assert not torch.equal(plain(vlm), before)
