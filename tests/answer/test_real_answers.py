"""Answers through a real tokenizer: text piece by piece, and parity with plain transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import clip
from stock import QUESTION, Stock, teacher_forced

import mmkv
from mmkv.engine.detokenizer import Detokenizer

TEXTS = {
    "Chinese": "画面中有一只猫坐在桌子上,旁边放着一本打开的书。" * 20,
    "rare Chinese": "龘靐齉爩鱻麤" * 10,
    "emoji": "👩‍👩‍👧 🇳🇱 🏴󠁧󠁢󠁳󠁣󠁴󠁿 👍🏽 🧑🏿‍🚀 " * 10,
    "combining marks": "Z\u0351\u036ba\u0316\u0310l\u033f\u035ag\u0324o \u1100\u1161\u11a8 " * 10,
    "scripts": "नमस्ते दुनिया · שָׁלוֹם · السَّلَامُ · ภาษาไทย · 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 " * 10,
    "layout": "  1. one\n\n\n\t- two  \r\n```py\n    x = 1\n```  and \u2028 \ufffd more \n " * 10,
}


def pieces(tok: Any, ids: list[int]) -> list[str]:
    """What a reply shows after each token, and at the end."""
    shown = Detokenizer(tok)
    given = [shown.take(ids[:n], whole=False) for n in range(1, len(ids) + 1)]
    return [*given, shown.take(ids, whole=True)]


def ids_of(tok: Any, text: str) -> list[int]:
    return list(tok(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_a_long_answer_in_pieces_is_the_answer_decoded_at_once(
    real_tokenizer: Any, text: str
) -> None:
    ids = ids_of(real_tokenizer, text)
    given = pieces(real_tokenizer, ids)
    assert "".join(given) == real_tokenizer.decode(ids).strip()
    assert sum(map(bool, given)) > 40  # it came in pieces, and not at its end


@pytest.mark.parametrize("text", ["rare Chinese", "emoji", "scripts"])
def test_no_piece_shows_a_part_of_a_character(real_tokenizer: Any, text: str) -> None:
    ids = ids_of(real_tokenizer, TEXTS[text])
    assert any(real_tokenizer.decode([i]) == "\ufffd" for i in ids)  # one character, many tokens
    assert "\ufffd" not in "".join(pieces(real_tokenizer, ids))


@given(st.lists(st.integers(0, 151668), max_size=40))
@settings(max_examples=100, deadline=None)
def test_tokens_that_are_no_text_join_as_well(real_tokenizer: Any, ids: list[int]) -> None:
    want = real_tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert "".join(pieces(real_tokenizer, ids)) == want


@pytest.mark.parametrize("start", [0.0, 3599.5])
def test_a_whole_answer_equals_plain_transformers(real_vlm: mmkv.VideoLM, start: float) -> None:
    frames, times = clip(8, seed=3), [start + 0.5 * i for i in range(8)]
    config = mmkv.CacheConfig(window_frames=20, recent_frames=2, retrieve_frames=50)
    with real_vlm.stream(config) as stream:
        stream.feed(frames, times)
        rows, ids = teacher_forced(stream, 16)
        answer = stream.ask(QUESTION, max_new_tokens=16)
    with torch.inference_mode():
        expected = Stock(real_vlm, frames, times).logits(QUESTION, ids)
    assert len(set(ids)) > 1
    assert answer.text == real_vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert answer.hint is None
    for step, row in enumerate(rows[: len(ids)]):
        want = expected[-1 - len(ids) + step]
        assert (row - want).abs().max() <= 1e-4 * max(1.0, want.abs().max().item())
        assert row.argmax() == want.argmax()
