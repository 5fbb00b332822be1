"""A question, and its answer as it arrives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger("mmkv.demo")

BEST = 6  # frames that are shown
State = Literal["waiting", "answering", "done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that an answer is based on.

    Attributes:
        seconds: its time.
        score: how well it matches the question.
        picture: a small JPEG, where there is one.
    """

    seconds: float
    score: float
    picture: bytes | None


class Exchange:
    """Answers one question in a thread of its own, so that it continues when its page is reloaded.

    Args:
        question: what was asked.
        ask: gives the engine's reply, once it is the question's turn.
        words: turns an error into a sentence.

    Attributes:
        question: what was asked.
        state: how far it is.
        text: the answer so far.
        frames: the few that match best, best first.
        as_of: seconds of the newest frame it may have used.
        first_token: seconds to the first token.
        note: what else to know.
    """

    def __init__(
        self, question: str, ask: Callable[[], Any], words: Callable[[Exception], str] = str
    ) -> None:
        self.question = question
        self.state: State = "waiting"
        self.text = ""
        self.frames: tuple[Seen, ...] = ()
        self.as_of: float | None = None
        self.first_token: float | None = None
        self.note = ""
        self._ask = ask
        self._words = words
        self._reply: Any = None
        self._stopping = False
        self._version = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="mmkv-answer", daemon=True)

    def start(self) -> Exchange:
        """Begin; returns the exchange at once."""
        self._thread.start()
        return self

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "stopped", "failed")

    def stop(self) -> None:
        """End the answer now; what has arrived so far is kept."""
        with self._changed:
            self._stopping = True
            reply = self._reply
            if not self.over:
                self._set(state="stopped")
        if reply is not None:
            reply.close()

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the engine is done; returns whether it is."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def wait(self, version: int, timeout: float) -> int:
        """Wait up to `timeout` seconds for something newer than `version`.

        Returns:
            the current version.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._version > version or self.over, timeout)
            return self._version

    def _run(self) -> None:
        try:
            reply = self._ask()
            try:
                self._read(reply)
            finally:
                reply.close()
        except Exception as error:
            if not isinstance(error, ValueError):
                log.exception("an answer failed")
            with self._changed:
                if not self.over:
                    self._set(state="failed", note=self._words(error))

    def _read(self, reply: Any) -> None:
        seen = tuple(Seen(f.seconds, f.score, f.thumbnail) for f in reply.frames[:BEST] if f.layers)
        with self._changed:
            self._reply = reply
            if self._stopping:
                return
            self._set(state="answering", frames=seen)
        for piece in reply:
            with self._changed:
                if self.over:
                    return
                first = reply.answer.timings.get("first_token")
                self._set(text=self.text + piece, first_token=first)
        answer = reply.answer
        with self._changed:
            if not self.over:
                note = answer.hint or ""
                if answer.finish_reason == "length":
                    note = f"{note} The answer was cut off at this server's limit.".strip()
                self._set(state="done", text=answer.text, as_of=answer.as_of, note=note)

    def _set(self, state: State | None = None, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)
        if state is not None:  # last, so that whoever sees that it is over reads the whole answer
            self.state = state
        self._version += 1
        self._changed.notify_all()
