"""One way of a question through the model: nothing runs before it is asked to, nothing is left."""

from __future__ import annotations

import time
from typing import Any

import pytest
from small_models import clip, small_vlm

import mmkv
from mmkv.answer.context import Context
from mmkv.answer.external import External
from mmkv.answer.find import find
from mmkv.answer.generation import Generation
from mmkv.answer.past import Retrieved
from mmkv.answer.reply import Reply
from mmkv.engine import hooks
from mmkv.engine.sampling import Sampling


@pytest.fixture
def stream() -> Any:
    config = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4)
    with small_vlm("llava_onevision", shared=False).stream(config) as one:
        one.feed(clip(12), [float(i) for i in range(12)])
        yield one


def generation(stream: mmkv.Stream, room: int = 4) -> Generation:
    context = stream._context(None, None)
    retriever = stream._retriever(context, "What?")
    prompt = stream._template.fitting("What?")
    return Generation(stream._runtime, context, prompt, retriever, Retrieved(), room)


def users(stream: mmkv.Stream) -> int:
    """How many hold the model's hooks."""
    return len(hooks._attached[stream._runtime.adapter.language_model].users)


def refuse(*args: Any, **options: Any) -> Any:
    raise RuntimeError("the model ran")


def test_a_constructor_runs_no_model(stream: mmkv.Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = stream._runtime.adapter
    for module in (adapter.language_model, adapter.language_model.embed_tokens, adapter.lm_head):
        monkeypatch.setattr(module, "forward", refuse)
    reply = Reply(generation(stream), Sampling(), time.perf_counter())
    with pytest.raises(RuntimeError, match="the model ran"):
        reply.start()


def test_a_retriever_by_another_model_runs_it_when_a_layer_chooses(stream: mmkv.Stream) -> None:
    class Encoder:
        text = staticmethod(refuse)

    context = stream._context(None, None)
    encoder: Any = Encoder()
    retriever = External(context.past, encoder, "What?", {}, context.candidates, [], 2)
    with pytest.raises(RuntimeError, match="the model ran"):
        retriever.scores(0, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["model", "frames"])
def test_a_question_that_fails_leaves_the_model_as_it_was(
    stream: mmkv.Stream, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    held = users(stream)
    with monkeypatch.context() as patch:
        if where == "model":
            patch.setattr(stream._runtime.adapter.language_model, "forward", refuse)
        else:
            patch.setattr(Context, "thumbnail", refuse)
        with pytest.raises(RuntimeError, match="the model ran"):
            stream.ask("What?")
    assert users(stream) == held
    assert stream.ask("What?", max_new_tokens=2).token_ids


def test_finding_lets_the_model_go_and_computes_no_logits(
    stream: mmkv.Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = users(stream)
    monkeypatch.setattr(stream._runtime.adapter.lm_head, "forward", refuse)
    find(generation(stream, room=0), 2)
    assert users(stream) == held
