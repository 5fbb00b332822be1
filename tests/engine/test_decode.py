"""Generated tokens: each is the same step on the same memory, so that it can be replayed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import tape
import torch
import waiting
from small_models import FAMILIES, clip, small_vlm

import mmkv
from mmkv.engine.cuda_graph import CudaGraphs, recorder_for
from mmkv.engine.decode_buffers import BufferPool

FRAMES, TOKENS = 16, 10


@pytest.fixture
def vlm() -> mmkv.VideoLM:
    return small_vlm("llava_onevision", shared=False)  # some tests change its weights


def opened(vlm: mmkv.VideoLM, **settings: Any) -> mmkv.Stream:
    settings = {"window_frames": 6, "recent_frames": 2, "retrieve_frames": 4, **settings}
    stream = vlm.stream(mmkv.CacheConfig(**settings))
    stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
    return stream


def rows(stream: mmkv.Stream, question: str = "What?", tokens: int = TOKENS, **options: Any) -> Any:
    """Logits `[tokens, V]` of an answer that nothing ends."""
    options = {"max_new_tokens": tokens, **options}
    with stream.ask_iter(question, **options) as reply:
        found = [reply._generation.logits.clone()]
        for i in range(tokens - 1):
            with torch.inference_mode():
                found.append(reply._generation.step(5 + i).clone())
    return torch.stack(found)


ALL = {"retrieve_frames": "all"}


@pytest.mark.parametrize(
    ("family", "settings"),
    [*((family, {}) for family in FAMILIES), ("llava_onevision", ALL), ("qwen2_5_vl", ALL)],
    ids=str,
)
def test_a_replayed_step_gives_the_logits_of_one_that_runs(
    family: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = small_vlm(family)
    with opened(vlm, **settings) as stream:
        want = rows(stream)
        recorder = tape.install(monkeypatch, vlm)
        got = rows(stream)
    assert (recorder.records, recorder.replays) == (1, TOKENS - 3)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_the_next_answer_replays_what_the_one_before_it_recorded(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(vlm) as stream:
        questions = ["What was there?", "When?", "What?"]  # from longest to shortest
        want = [rows(stream, q) for q in questions]
        recorder = tape.install(monkeypatch, vlm)
        got = [rows(stream, q) for q in questions]
    assert recorder.records == 1
    assert recorder.replays == 3 * (TOKENS - 1) - 2
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_what_was_recorded_with_one_past_is_not_replayed_with_another(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(vlm, retrieve_frames="all") as stream:
        want = [rows(stream, until=9.0), rows(stream)]
        recorder = tape.install(monkeypatch, vlm)
        got = [rows(stream, until=9.0), rows(stream)]
    assert recorder.records == 2
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_an_answer_that_outgrows_its_buffers_is_recorded_again(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmkv.answer.retrieval_pass._ROOM", 4)
    with opened(vlm) as stream:
        want = rows(stream)
        recorder = tape.install(monkeypatch, vlm)
        got = rows(stream)
    assert recorder.records == 2
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_answers_under_way_at_once_have_memory_of_their_own(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape.install(monkeypatch, vlm)
    with opened(vlm) as stream:
        alone = [stream.ask(q, max_new_tokens=TOKENS).token_ids for q in ("What?", "When was it?")]
        replies = [stream.ask_iter(q, max_new_tokens=TOKENS) for q in ("What?", "When was it?")]
        slots = {id(reply._generation.engine_pass.buffers) for reply in replies}
        done: list[Any] = [None, None]

        def finish(i: int) -> None:
            done[i] = replies[i].finish().token_ids

        threads = [threading.Thread(target=finish, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        waiting.finish(*threads)
    assert len(slots) == 2
    assert done == alone


def test_one_slot_is_kept_for_the_next_answer_and_is_empty(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape.install(monkeypatch, vlm)
    with opened(vlm) as stream:
        replies = [stream.ask_iter("What?", max_new_tokens=TOKENS) for _ in range(3)]
        size = replies[0]._generation.engine_pass.nbytes
        for reply in replies:
            reply.finish()
        assert vlm.buffers.nbytes == size
        assert not any(b.key.any() or b.value.any() for b in vlm.buffers._idle[0].layers)
        reply = stream.ask_iter("What?", max_new_tokens=TOKENS)
        assert not vlm.buffers._idle
        assert vlm.buffers.nbytes == size
        reply.close()
        assert vlm.buffers.nbytes == size


def test_nothing_is_kept_where_nothing_is_recorded(vlm: mmkv.VideoLM) -> None:
    with opened(vlm) as stream:
        stream.ask("What?", max_new_tokens=4)
    assert vlm.buffers.recorder is None
    assert vlm.buffers.nbytes == 0


def test_a_cancelled_answer_leaves_the_next_one_as_it_would_be(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = tape.install(monkeypatch, vlm)
    with opened(vlm) as stream:
        want = rows(stream)
        with stream.ask_iter("What?", max_new_tokens=TOKENS) as reply:
            next(reply, None)
        got = rows(stream)
    assert recorder.records == 1
    assert torch.equal(got, want)


def test_sampling_with_a_seed_is_the_same_replayed(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"max_new_tokens": TOKENS, "temperature": 2.0, "top_p": 0.9, "seed": 3}
    with opened(vlm) as stream:
        want = stream.ask("What?", **options).token_ids
        recorder = tape.install(monkeypatch, vlm)
        assert stream.ask("What?", **options).token_ids == want
    assert recorder.replays or len(want) < 4


def test_graphs_can_be_switched_off(vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = tape.install(monkeypatch, vlm)
    vlm.cuda_graphs = False
    with opened(vlm) as stream:
        rows(stream)
    assert recorder.records == 0


def test_switched_off_what_was_recorded_before_is_not_replayed(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = tape.install(monkeypatch, vlm)
    with opened(vlm) as stream:
        rows(stream)
        replayed, vlm.cuda_graphs = recorder.replays, False
        rows(stream)
    assert recorder.replays == replayed


def scaled(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(weight.detach() * 0.5, requires_grad=False)


def replace_a_projection(vlm: mmkv.VideoLM) -> None:
    module = vlm.adapter.language_model.layers[1].self_attn.o_proj
    module.weight = scaled(module.weight)


def replace_the_head(vlm: mmkv.VideoLM) -> None:
    vlm.adapter.lm_head.weight = scaled(vlm.adapter.lm_head.weight)


def move_all(vlm: mmkv.VideoLM) -> None:
    for weight in vlm.adapter.language_model.parameters():
        weight.data = weight.data * 0.5  # as `.to` does, which keeps the parameter


def copy_into_place(vlm: mmkv.VideoLM) -> None:
    with torch.no_grad():
        for weight in vlm.adapter.language_model.parameters():
            weight.mul_(0.5)


@pytest.mark.parametrize(
    ("change", "records"),
    [(replace_a_projection, 2), (replace_the_head, 2), (move_all, 2), (copy_into_place, 1)],
)
def test_what_was_recorded_with_other_weights_is_not_replayed(
    change: Callable[[mmkv.VideoLM], None],
    records: int,
    vlm: mmkv.VideoLM,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opened(vlm) as stream:
        with monkeypatch.context() as patch:
            recorder = tape.install(patch, vlm)
            rows(stream)
            change(vlm)
            got = rows(stream)
        want = rows(stream)  # every step run
    assert recorder.records == records
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


class Adapted(torch.nn.Module):
    """A layer with an adapter, which is switched as PEFT does it."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer, self.on = layer, False
        self.adapter = torch.nn.Parameter(torch.full((), 0.5), requires_grad=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(states)
        return out * self.adapter if self.on else out

    def switch(self) -> None:
        self.on = not self.on
        self.adapter.requires_grad_(self.on)


def test_what_was_recorded_with_another_adapter_is_not_replayed(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = vlm.adapter.language_model.layers[1].self_attn
    attention.o_proj = adapted = Adapted(attention.o_proj)
    with opened(vlm) as stream:
        with monkeypatch.context() as patch:
            recorder = tape.install(patch, vlm)
            rows(stream)
            adapted.switch()
            got = rows(stream)
        want = rows(stream)  # every step run
    assert recorder.records == 2
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_slots_follow_a_model_that_moves() -> None:
    vlm = small_vlm("llava_onevision")
    here, there = torch.device("cpu"), torch.device("meta")
    where = [here]
    slots = BufferPool(vlm.adapter, lambda: where * vlm.adapter.shape.layers)
    assert slots.acquire().layers[0].key.device == here
    where[0] = there
    assert slots.acquire().layers[0].key.device == there


def test_stats_tell_the_memory_of_answers(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape.install(monkeypatch, vlm)
    with opened(vlm) as stream, opened(vlm) as other:
        assert stream.stats().answer_bytes == 0
        replies = [stream.ask_iter("What?", max_new_tokens=TOKENS) for _ in range(2)]
        size = replies[0]._generation.engine_pass.nbytes
        assert stream.stats().answer_bytes == other.stats().answer_bytes == 2 * size
        for reply in replies:
            reply.close()
        assert stream.stats().answer_bytes == vlm.buffers.nbytes == size
        assert "answers" in repr(stream.stats())
        assert stream.stats().to_dict()["answer_bytes"] == size


def test_what_cannot_be_recorded_runs_and_is_told_once(
    vlm: mmkv.VideoLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    current = ["the answer's"]
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda *a, **k: tape.no_graph(current))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", current.append)
    with opened(vlm) as stream:
        want = rows(stream)
        monkeypatch.setattr(vlm.buffers, "recorder", CudaGraphs())
        with caplog.at_level(logging.WARNING, logger="mmkv"):
            got = [rows(stream), rows(stream)]
    assert all(torch.equal(row, want) for row in got)
    assert [r.getMessage() for r in caplog.records] == [
        "answers are generated without CUDA graphs, which is slower: RuntimeError: operation not "
        "permitted when stream is capturing"
    ]
    assert current[-1] == "the answer's"  # not the one that the capture began on


def test_only_a_model_on_one_cuda_device_is_recorded() -> None:
    cpu, first, second = (torch.device(name) for name in ("cpu", "cuda:0", "cuda:1"))
    assert recorder_for({cpu}) is None
    assert recorder_for({first, second}) is None
    assert recorder_for({first, cpu}) is None
    assert isinstance(recorder_for({first}), CudaGraphs)
