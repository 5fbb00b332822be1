"""A tokenizer of which only the needed part is read encodes as the whole one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from mmkv.models.tiny import CHECKPOINT
from mmkv.models.tokenizer_file import TokenizerFile

WORDS = "<12.5 seconds> at 0:07, Frame 12: the second condor; ten cents, no dozen <0.0 seconds>"
TEXTS = ["<0.5 seconds>", "<1234.0 seconds>", " Frame3: ", "<|end|>seconds<|end|>", "", "Zürich"]


def saved(kind: str, folder: Path) -> Tokenizer:
    """A small trained tokenizer as families have them, in its file."""
    core: Tokenizer
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False)
    if kind == "byte-level":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, show_progress=False, initial_alphabet=alphabet
        )
    elif kind == "sentencepiece":
        bytes_ = [f"<0x{n:02X}>" for n in range(256)]
        core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        core.normalizer = normalizers.Replace(" ", "\u2581")
        trainer = trainers.BpeTrainer(
            vocab_size=600, show_progress=False, special_tokens=["<unk>", *bytes_]
        )
    else:
        core = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=60, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]
        )
    core.train_from_iterator([WORDS] * 4, trainer)
    core.add_special_tokens([AddedToken("<|end|>", special=True)])
    core.save(str(folder / "tokenizer.json"))
    return core


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece", "unigram"])
def test_texts(kind: str, text: str, tmp_path: Path) -> None:
    core = saved(kind, tmp_path)
    found = TokenizerFile(lambda name: tmp_path / name)
    wanted = core.encode(text, add_special_tokens=False).ids
    assert found(text).input_ids == found(text)["input_ids"] == found.encode(text) == wanted
    assert found.convert_tokens_to_ids("<|end|>") == core.token_to_id("<|end|>")
    assert not found.missing


def test_merges_written_as_one_text(tmp_path: Path) -> None:
    core = saved("byte-level", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    content["model"]["merges"] = merges
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    found = TokenizerFile(lambda name: tmp_path / name)
    assert found(TEXTS[1]).input_ids == core.encode(TEXTS[1]).ids
    assert len(merges) > len(found(TEXTS[1]).input_ids) > 3


def test_the_bundled_one() -> None:
    core = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    found = TokenizerFile(lambda name: CHECKPOINT / name)
    text = "Where was the red circle?"
    assert found(text).input_ids == core.encode(text, add_special_tokens=False).ids


def test_one_that_is_missing_says_so() -> None:
    found = TokenizerFile(lambda name: None)
    assert not found.missing
    assert found("a").input_ids == []
    assert found.convert_tokens_to_ids("a") is None
    assert found.missing
