"""A question asked again and again while a stream is watched, for alerts and logs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from mmkv.answer.answer import Answer
from mmkv.answer.context import NoFramesError

if TYPE_CHECKING:
    from mmkv.answer.reply import Reply
    from mmkv.session.feed import Feed
    from mmkv.session.stream import Stream

_LOOK = 0.05  # seconds between looks at the stream
_NEAR = 1e-6  # seconds that times may be off by, since they are sums


class AskEvery:
    """Iterates over answers, one for every `seconds` of the stream's own time; made by `ask_every`.

    Moments of a file are all answered, each from what came before it, however far the file has
    been read by then. Moments of a live source that pass while an answer is under way are left
    out: the next answer is about the newest one. So nothing ever waits in a queue.

    Attributes:
        moment: of the newest answer, in seconds of the stream; None before the first.
        skipped: moments left out so far.
    """

    def __init__(
        self,
        stream: Stream,
        question: str,
        seconds: float,
        *,
        span: float | None = None,
        **options: Any,
    ) -> None:
        for name, value in {"seconds": seconds, **({} if span is None else {"span": span})}.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value < float("inf"):
                raise ValueError(f"{name}={value!r} is not allowed; use seconds above 0")
        for name in ("since", "until"):
            if name in options:
                raise ValueError(f"{name}= is set for each answer; use span= for how far back")
        self._stream = stream
        self._question = question
        self._seconds = float(seconds)
        self._span = span
        self._options = options
        self._closed = threading.Event()
        self._reply: Reply | None = None
        self._begin = None if stream.feeds else stream.seconds
        self._next = 1  # the number of the next moment
        self._tried: float | None = None
        self.moment: float | None = None
        self.skipped = 0

    def __repr__(self) -> str:
        at = "no answer yet" if self.moment is None else f"answered at {self.moment:.1f} s"
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"<AskEvery {self._seconds:g} s {self._question!r}: {at}{skipped}>"

    def __iter__(self) -> AskEvery:
        return self

    def __next__(self) -> Answer:
        """Wait for the next moment and answer.

        Raises:
            StopIteration: the source has ended, or `close` was called.
            Exception: what ended the feed; raised after the answers about earlier frames.
        """
        while not self._closed.is_set():
            feeds = self._stream.feeds
            over = self._over(feeds)  # looked at first: what it encoded last is then seen
            newest = self._stream.seconds
            if newest is not None and (due := self._due(newest, feeds, over)) is not None:
                if (answer := self._answer(due)) is not None:
                    return answer
                continue
            if over:
                self.close()
                if (error := next((f.error for f in feeds if f.error), None)) is not None:
                    raise error
                break
            self._closed.wait(_LOOK)
        raise StopIteration

    def close(self) -> None:
        """Stop, even in the middle of an answer; may be called from any thread."""
        self._closed.set()
        if (reply := self._reply) is not None:
            reply.close()

    def __enter__(self) -> AskEvery:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _over(self, feeds: list[Feed]) -> bool:
        """Return whether no more frames come; without a feed, only the stream's end shows that."""
        if self._stream.closed:
            return True
        return bool(feeds) and not any(feed.running for feed in feeds)

    def _due(self, newest: float, feeds: list[Feed], over: bool) -> float | None:
        """Return the moment to answer now; None if none has passed."""
        if self._begin is None:
            firsts = [feed.first for feed in feeds if feed.first is not None]
            if feeds and not firsts and not over:
                return None  # the frames so far came before the source
            self._begin = min(firsts, default=newest)
        passed = int((newest - self._begin) / self._seconds + _NEAR)
        if passed >= self._next:
            if not feeds or any(feed.live for feed in feeds):
                self.skipped += passed - self._next
                self._next = passed
            self._tried = min(self._begin + self._next * self._seconds, newest)
            self._next += 1
            return self._tried
        if over and (self._tried is None or newest > self._tried + _NEAR):
            self._tried = newest  # what came after the last whole interval
            return newest
        return None

    def _answer(self, due: float) -> Answer | None:
        """Answer from what was seen until `due`; None if nothing was, or after `close`."""
        since = None if self._span is None else due - self._span
        try:
            self._reply = self._stream.ask_iter(
                self._question, since=since, until=due + _NEAR, **self._options
            )
        except NoFramesError:  # nothing came for as long as `span`
            return None
        except ValueError:
            if self._stream.closed or self._closed.is_set():
                return None
            raise
        with self._reply as reply:
            if not self._closed.is_set():
                reply.finish()
        self._reply = None
        if reply.answer.finish_reason == "cancelled":
            return None
        self.moment = due
        return reply.answer
