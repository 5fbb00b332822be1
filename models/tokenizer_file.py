"""A tokenizer for a few short texts, read from its file in a fraction of the usual time.

Building a tokenizer of 150,000 tokens takes most of a second. A text can only ever become tokens
that are spelled with its own characters, so the others and their merges are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # tokens that stand for bytes
_SPACES = "\u2581"  # what SentencePiece writes for a space


class Ids(dict[str, list[int]]):
    """What calling a tokenizer gives."""

    @property
    def input_ids(self) -> list[int]:
        """Token ids."""
        return self["input_ids"]


class TokenizerFile:
    """A tokenizer that is read when a text is first encoded.

    Args:
        find: given the name of a file of the checkpoint, its path; None where there is none.

    Attributes:
        missing: whether a text was to be encoded and there is no tokenizer.json; it counts as no
            tokens then.
    """

    def __init__(self, find: Callable[[str], Path | None]) -> None:
        self.missing = False
        self._find = find
        self._content: dict[str, Any] | None = None

    def __call__(self, text: str, add_special_tokens: bool = False) -> Ids:
        """Encode a text."""
        content = self._read()
        if content is None:
            return Ids(input_ids=[])
        from tokenizers import Tokenizer

        core = Tokenizer.from_str(json.dumps(_for_text(content, text)))
        return Ids(input_ids=core.encode(text, add_special_tokens=add_special_tokens).ids)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Encode a text."""
        return self(text, add_special_tokens).input_ids

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return a token's id, None for one that is not known."""
        content = self._read()
        if content is None:
            return None
        added = {one["content"]: int(one["id"]) for one in content.get("added_tokens") or []}
        vocabulary = content["model"].get("vocab")
        found = vocabulary.get(token) if isinstance(vocabulary, dict) else None
        return added.get(token, found)

    def _read(self) -> dict[str, Any] | None:
        if self._content is None and not self.missing:
            path = self._find("tokenizer.json")
            self.missing = path is None
            if path is not None:
                self._content = json.loads(path.read_text(encoding="utf-8"))
        return self._content


def _for_text(content: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a tokenizer's content with no more tokens than a text may need."""
    model = content["model"]
    if model.get("type") != "BPE" or not text.isascii():  # others may be normalised to anything
        return content
    from tokenizers.pre_tokenizers import ByteLevel

    spelled = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    used = set(text + text.upper() + text.lower() + _SPACES).union(*(word for word, _ in spelled))
    prefixes = {model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""}
    used = used.union(*prefixes)
    vocabulary = {
        token: number
        for token, number in model["vocab"].items()
        if used.issuperset(token) or _BYTE.fullmatch(token) or token == model.get("unk_token")
    }
    # so that they keep their numbers
    vocabulary |= {one["content"]: one["id"] for one in content.get("added_tokens") or []}
    merges = [pair for pair in model["merges"] if used.issuperset("".join(pair).replace(" ", ""))]
    return content | {"model": model | {"vocab": vocabulary, "merges": merges}}
