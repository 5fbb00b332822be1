"""Text arrives as it is generated, stops when told, and is chosen as asked."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import FAMILIES, clip, small_vlm
from waiting import finish

import mmkv
from mmkv.engine.detokenizer import Detokenizer
from mmkv.engine.sampling import Sampler, Sampling

CONFIG = mmkv.CacheConfig(window_frames=6, recent_frames=2, retrieve_frames=4)
VLM = small_vlm("llava_onevision")


@pytest.fixture
def stream() -> Any:
    with VLM.stream(CONFIG) as opened:
        opened.feed(clip(9), np.arange(9.0))
        yield opened


def says(stream: mmkv.Stream, ids: list[int], **options: Any) -> Any:
    """A reply whose sampler gives these tokens, then the stop token."""
    reply = stream.ask_iter("What?", **options)
    tokens = iter([*ids, VLM.tokenizer.eos_token_id])
    reply._sampler = lambda logits: next(tokens)
    return reply


def ids_of(text: str) -> list[int]:
    return list(VLM.tokenizer(text).input_ids)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12))
@settings(max_examples=25, deadline=None)
def test_pieces_join_to_the_answers_text(text: str) -> None:
    with VLM.stream(CONFIG) as stream:
        stream.feed(clip(2), [0.0, 1.0])
        reply = says(stream, ids_of(text))
        assert "".join(reply) == reply.answer.text == text.strip()


@given(st.lists(st.integers(0, 255), max_size=12))
@settings(max_examples=25, deadline=None)
def test_pieces_join_even_where_tokens_are_no_text(ids: list[int]) -> None:
    with VLM.stream(CONFIG) as stream:
        stream.feed(clip(2), [0.0, 1.0])
        reply = says(stream, ids)
        assert "".join(reply) == reply.answer.text


def test_a_long_answer_is_not_decoded_anew_at_every_token(stream: mmkv.Stream) -> None:
    decoded: list[int] = []
    reply = says(stream, ids_of("many words " * 10), max_new_tokens=1000)
    inner = VLM.tokenizer

    class Counting:
        def decode(self, ids: Any, **options: Any) -> Any:
            decoded.append(len(ids))
            return inner.decode(ids, **options)

    reply._text = Detokenizer(Counting())
    tokens = len(reply.finish().token_ids)
    assert tokens == 110
    assert sum(decoded) < 5 * tokens


def test_white_space_around_an_answer_is_left_out_of_its_pieces(stream: mmkv.Stream) -> None:
    assert "".join(says(stream, ids_of("  \n a  b \n "))) == "a  b"


def test_a_character_of_several_tokens_comes_whole(stream: mmkv.Stream) -> None:
    assert list(says(stream, ids_of("日本 😀!"))) == ["日", "本", " 😀", "!"]


def test_an_answer_cut_inside_a_character_still_ends(stream: mmkv.Stream) -> None:
    reply = says(stream, ids_of("ab日"), max_new_tokens=4)
    assert "".join(reply) == reply.answer.text == "ab\ufffd"
    assert reply.answer.finish_reason == "length"


def test_a_stop_token_ends_the_answer_and_is_not_in_it(stream: mmkv.Stream) -> None:
    answer = says(stream, ids_of("yes")).finish()
    assert (answer.text, answer.finish_reason) == ("yes", "stop")
    assert VLM.tokenizer.eos_token_id not in answer.token_ids


@pytest.mark.parametrize("family", FAMILIES)
def test_the_checkpoints_own_stop_tokens_count_too(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(small_vlm(family).model.generation_config, "eos_token_id", [7, 9])
        vlm = small_vlm(family)
    assert vlm.stop_tokens == {7, 9, vlm.tokenizer.eos_token_id}


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_tokens_than_asked_for(stream: mmkv.Stream, most: int) -> None:
    answer = says(stream, ids_of("abcdef"), max_new_tokens=most).finish()
    assert (len(answer.token_ids), answer.finish_reason) == (most, "length")


def test_frames_are_known_before_the_first_token(stream: mmkv.Stream) -> None:
    reply = stream.ask_iter("What?", max_new_tokens=2)
    assert reply.frames
    assert reply.frames == reply.finish().frames


def test_closing_keeps_what_was_shown(stream: mmkv.Stream) -> None:
    reply = says(stream, ids_of("one two"))
    shown = [next(reply), next(reply)]
    reply.close()
    assert list(reply) == []
    assert reply.answer.finish_reason == "cancelled"
    assert reply.answer.text == "".join(shown) == "on"


def test_closing_before_the_first_token_gives_an_empty_answer(stream: mmkv.Stream) -> None:
    reply = stream.ask_iter("What?")
    reply.close()
    assert list(reply) == []
    assert (reply.answer.text, reply.answer.finish_reason) == ("", "cancelled")


def test_closing_twice_or_after_the_end_changes_nothing(stream: mmkv.Stream) -> None:
    reply = says(stream, ids_of("yes"))
    answer = reply.finish()
    reply.close()
    reply.close()
    assert reply.answer is answer


def test_closing_from_another_thread_ends_the_wait_for_the_device(stream: mmkv.Stream) -> None:
    reply = stream.ask_iter("What?")
    pieces: list[str] = []
    with VLM.lock.hold():
        thread = threading.Thread(target=lambda: pieces.extend(reply))
        thread.start()
        reply.close()
        finish(thread)
    assert reply.answer.finish_reason == "cancelled"


def test_leaving_a_with_block_closes_the_reply(stream: mmkv.Stream) -> None:
    with says(stream, ids_of("one two")) as reply:
        next(reply)
    assert (reply.answer.text, reply.answer.finish_reason) == ("o", "cancelled")


def test_an_answer_lets_its_memory_go(stream: mmkv.Stream) -> None:
    reply = stream.ask_iter("What?", max_new_tokens=2)
    assert reply._generation.engine_pass.nbytes > 0
    reply.finish()
    assert not hasattr(reply, "_pass")
    assert not hasattr(reply, "_context")


def test_answers_are_greedy_whatever_the_checkpoint_says(
    stream: mmkv.Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = stream.ask("What?", max_new_tokens=8)
    for name, value in {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0}.items():
        monkeypatch.setattr(VLM.model.generation_config, name, value)
    assert stream.ask("What?", max_new_tokens=8).token_ids == plain.token_ids


def test_a_seed_makes_sampling_repeatable(stream: mmkv.Stream) -> None:
    def ask(seed: int | None) -> tuple[int, ...]:
        answer = stream.ask("What?", max_new_tokens=12, temperature=3.0, seed=seed)
        return answer.token_ids

    assert ask(1) == ask(1)
    assert len({ask(1), ask(2), ask(3)}) > 1
    assert len({ask(None) for _ in range(4)}) > 1


def test_sampling_leaves_the_global_generators_alone(stream: mmkv.Stream) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    stream.ask("What?", max_new_tokens=5, temperature=1.0, seed=1)
    stream.ask("What?", max_new_tokens=5, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def drawn(logits: list[float], **options: Any) -> set[int]:
    sampler = Sampler(Sampling(seed=0, **options), torch.device("cpu"))
    return {sampler(torch.tensor(logits)) for _ in range(200)}


def test_a_low_temperature_keeps_to_the_best_token() -> None:
    assert drawn([1.0, 2.0, 3.0], temperature=0.01) == {2}


def test_a_high_temperature_uses_every_token() -> None:
    assert drawn([1.0, 2.0, 3.0], temperature=50.0) == {0, 1, 2}


def test_top_p_keeps_the_smallest_set_that_is_likely_enough() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().tolist()
    assert drawn(logits, temperature=1.0, top_p=0.4) == {0}
    assert drawn(logits, temperature=1.0, top_p=0.7) == {0, 1}
    assert drawn(logits, temperature=1.0, top_p=1.0) == {0, 1, 2}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", None),
        ("seed", -1),
        ("seed", "x"),
        ("seed", 2**64),
    ],
)
def test_a_wrong_option_is_named_with_its_value(
    stream: mmkv.Stream, field: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"{field}={value!r} is not allowed; use"):
        stream.ask("What?", **{field: value})


@pytest.mark.parametrize("question", ["", "  \n", None, 3])
def test_an_empty_question_is_refused(stream: mmkv.Stream, question: Any) -> None:
    with pytest.raises(ValueError, match="is empty"):
        stream.ask(question)


def test_a_question_that_is_too_long_is_refused(stream: mmkv.Stream) -> None:
    with pytest.raises(ValueError, match=r"\d+ tokens; at most 4096"):
        stream.ask("why " * 2000)


def test_an_answer_turns_into_json(stream: mmkv.Stream) -> None:
    import json

    answer = stream.ask("What?", max_new_tokens=3)
    assert json.loads(json.dumps(answer.to_dict()))["as_of"] == 8.0
    assert {"wait", "prefill", "score", "load", "first_token", "total"} <= set(answer.timings)


def test_many_threads_ask_one_stream_at_once(stream: mmkv.Stream) -> None:
    want = stream.ask("What?", max_new_tokens=5).token_ids
    got: list[Any] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            got.extend(stream.ask("What?", max_new_tokens=5).token_ids == want for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    finish(*threads)
    assert got == [True] * 20
