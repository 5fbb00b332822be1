"""Frames decoded ahead of the model, in a thread of their own, within fixed memory."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator

from mmkv.video.source import Frame

log = logging.getLogger("mmkv.video")

Timed = tuple[float, Frame]

MAX_FRAMES = 8
MAX_BYTES = 64 * 2**20
_JOIN_SECONDS = 1.0


class ReadAhead:
    """A bounded queue and the thread that fills it.

    The thread runs `produce` from start to end, and so owns whatever it opens. An exception of
    `produce` reaches the reader after the frames before it.

    Args:
        produce: makes the iterator of `(seconds, frame)`; called, run and closed in the thread.
        name: the thread's name.
        max_frames: most frames that wait.
        max_bytes: most bytes of waiting frames; one frame may always wait.
    """

    def __init__(
        self,
        produce: Callable[[], Iterator[Timed]],
        name: str,
        max_frames: int = MAX_FRAMES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._produce: Callable[[], Iterator[Timed]] | None = produce
        self._limits = max_frames, max_bytes
        self._waiting: deque[Timed] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"mmkv {name}", daemon=True)
        self._thread.start()

    def get(self) -> Timed | None:
        """Take the next frame; blocks until there is one.

        Returns:
            `(seconds, frame)`, or None at the end and after `close`.

        Raises:
            BaseException: what `produce` raised, once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished or self._closed)
            if self._closed:
                return None
            if self._waiting:
                item = self._waiting.popleft()
                self._bytes -= item[1].nbytes
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def close(self) -> None:
        """Release the reader at once, then give the thread a second to end.

        May be called from any thread, any number of times.
        """
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    @property
    def closed(self) -> bool:
        """Whether `close` was called; a long-running `produce` checks this between its steps."""
        return self._closed

    def _run(self) -> None:
        assert self._produce is not None
        produce, self._produce = self._produce, None
        error: BaseException | None = None
        try:
            frames = produce()
            try:
                for item in frames:
                    if not self._put(item):
                        break
            finally:
                close = getattr(frames, "close", None)
                if close is not None:
                    close()
        except BaseException as caught:  # whatever it is, the reader gets it
            error = caught
        with self._changed:
            if error is not None and self._closed:
                log.debug("after close: %s", type(error).__name__)
            self._error = error
            self._finished = True
            self._changed.notify_all()

    def _put(self, item: Timed) -> bool:
        frames, size = self._limits
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or not self._waiting
                    or (len(self._waiting) < frames and self._bytes + item[1].nbytes <= size)
                )
            )
            if self._closed:
                return False
            self._waiting.append(item)
            self._bytes += item[1].nbytes
            self._changed.notify_all()
        return True
