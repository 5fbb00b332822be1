"""Token ids to text, piece by piece, at a cost that does not grow with the text so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Detokenizer:
    """Gives each part of a growing answer once, without white space around the whole.

    A token's text may depend on the one before it, and a character may need several tokens. So the
    tokens of the piece shown last are decoded again with the new ones, and a piece ends where its
    last character is complete.

    Attributes:
        shown: what was given so far.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before = 0  # tokens from here on are decoded again,
        self._read = 0  # of which those up to here are in pieces given before
        self._space = ""  # held back: it may turn out to be the end
        self.shown = ""

    def take(self, ids: Sequence[int], *, whole: bool) -> str:
        """Return what is new since the last call; "" while a character is incomplete.

        Args:
            ids: all tokens so far.
            whole: whether no more will follow.
        """
        if whole:
            text = self.all(ids)
            piece = text[len(self.shown) :] if text.startswith(self.shown) else self._more(ids)
        else:
            piece = self._more(ids)
            if piece.endswith("\ufffd"):
                return ""
            self._before, self._read = self._read, len(ids)
            piece = self._space + piece
            given = piece.rstrip()
            self._space = piece[len(given) :]
            piece = given if self.shown else given.lstrip()
        self.shown += piece
        return piece

    def all(self, ids: Sequence[int]) -> str:
        """Return the text of all tokens."""
        return self._decode(ids).strip()

    def _more(self, ids: Sequence[int]) -> str:
        before = self._decode(ids[self._before : self._read])
        return self._decode(ids[self._before :])[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
