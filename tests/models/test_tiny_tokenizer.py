"""The tokenizer reads questions as people type them, and renders chats as training did."""

from __future__ import annotations

from random import Random

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmkv.models.tiny import CHECKPOINT
from mmkv.models.tiny.batches import Encoder
from mmkv.models.tiny.questions import KINDS, Question, ask, random_clip
from mmkv.models.tiny.tokenizer import UNK, VIDEO, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def render(tokenizer: PreTrainedTokenizerFast, q: Question) -> list[int]:
    messages = []
    for text, answer in (*q.turns, (q.text, q.answer)):
        said = {"type": "text", "text": text}
        user = [said] if messages else [{"type": "video"}, said]
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer(text)["input_ids"]


def test_case_and_punctuation_are_ignored(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = tokenizer("where was the red circle")["input_ids"]
    assert tokenizer("  Where was... the RED circle?!")["input_ids"] == plain


def test_american_spelling_is_read(tokenizer: PreTrainedTokenizerFast) -> None:
    same = tokenizer("what color was an orange ring")["input_ids"]
    assert same == tokenizer("what colour was a orange ring")["input_ids"]


def test_an_unknown_word_is_unk(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("elephant")["input_ids"] == [tokenizer.get_vocab()[UNK]]


@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_what_the_chat_template_renders(
    kind: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = Encoder(tokenizer)
    rng = Random(kind)
    q = None
    while q is None:
        q = ask(kind, random_clip(rng, 3), rng)
    ids, labels, _ = encoder.question(q)
    video = tokenizer.get_vocab()[VIDEO]
    assert render(tokenizer, q) == [*encoder.prefix, video, *ids]
    assert [i for i in labels if i >= 0] == encoder(q.answer + " {e}")
    assert tokenizer.get_vocab()[UNK] not in ids


def test_the_checkpoint_holds_this_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    stored = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert stored.get_vocab() == tokenizer.get_vocab()
    assert stored.chat_template == tokenizer.chat_template
    assert stored.eos_token == tokenizer.eos_token
