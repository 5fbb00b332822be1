"""A conversation about a stream: text, prefilled anew after the frames at every turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmkv.answer.answer import Answer
from mmkv.config.rules import check_whole
from mmkv.models.prompt import Turn

if TYPE_CHECKING:
    from mmkv.session.stream import Stream


class Chat:
    """A conversation about a stream, which itself remembers nothing of it.

    Args:
        stream: what the questions are about.
        max_turns: how many of the newest turns are remembered.

    Attributes:
        turns: the remembered questions and answers, oldest first.
    """

    def __init__(self, stream: Stream, *, max_turns: int = 8) -> None:
        check_whole("max_turns", max_turns, 1)
        self._stream = stream
        self._max_turns = max_turns
        self.turns: list[Turn] = []

    def __repr__(self) -> str:
        return f"<Chat of {len(self.turns)} turns on {self._stream!r}>"

    def ask(self, question: str, **options: Any) -> Answer:
        """Answer with the turns so far in mind; options as in `Stream.ask`."""
        for _ in (pieces := self.ask_iter(question, **options)):
            pass
        return pieces.answer

    def ask_iter(self, question: str, **options: Any) -> ChatReply:
        """Like `ask`, but yield the text as it is generated; the turn is remembered at its end."""
        reply = self._stream.ask_iter(question, history=tuple(self.turns), **options)
        return ChatReply(self, question, reply)

    def remember(self, question: str, answer: str) -> None:
        """Add a turn, dropping the oldest beyond the limit."""
        self.turns = [*self.turns, (question, answer)][-self._max_turns :]


class ChatReply:
    """A `Reply` whose turn is remembered when it ends.

    Attributes:
        frames: what the answer is given from, best match first.
    """

    def __init__(self, chat: Chat, question: str, reply: Any) -> None:
        self._chat = chat
        self._question = question
        self._reply = reply
        self._done = False
        self.frames = reply.frames

    def __repr__(self) -> str:
        return f"<ChatReply to {self._question!r}: {self._reply!r}>"

    @property
    def answer(self) -> Answer:
        """The answer so far; complete once the iteration has ended."""
        answer: Answer = self._reply.answer
        return answer

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            piece: str = next(self._reply)
            return piece
        except StopIteration:
            if not self._done:
                self._done = True
                self._chat.remember(self._question, self.answer.text)
            raise

    def close(self) -> None:
        """Stop generating; may be called from any thread."""
        self._reply.close()
