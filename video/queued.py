"""Sources whose frames are read ahead by a thread: files, folders, iterators."""

import threading
import weakref
from collections.abc import Iterator

from mmkv.video.readahead import ReadAhead
from mmkv.video.source import Frame, FrameSource


class QueuedSource(FrameSource):
    """A source that hands out what its `ReadAhead` holds.

    The thread must not refer to the source itself: then a source that is no longer used is
    collected and its thread ends, even if it was never closed.

    Args:
        name: what to call it in messages.
        duration: length in seconds; None if unknown.
    """

    def __init__(self, name: str, duration: float | None = None) -> None:
        self.name = name
        self.duration = duration
        self._ahead: ReadAhead | None = None
        self._lock = threading.Lock()

    def _start(self, ahead: ReadAhead) -> None:
        self._ahead = ahead
        weakref.finalize(self, ahead.close)

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        ahead = self._ahead  # `close` may clear it at any moment
        while ahead is not None and (item := ahead.get()) is not None:
            yield item

    def close(self) -> None:
        """Stop reading, and end the thread."""
        super().close()
        with self._lock:
            ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
