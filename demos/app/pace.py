"""A file watched no faster than it is played."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from mmkv.video import Frame, FrameSource

LEAD = 0.5  # seconds that encoding may be ahead of the player


class PacedSource(FrameSource):
    """Frames of another source, each handed out once the player is near it.

    A jump forward in the player lets everything before it through at once. Once frames are not
    held back any more (`rush`), they arrive as fast as they can be read.

    Args:
        source: the other source; closing this one closes it.
        limit: seconds after which the source ends here.
        rush: do not hold frames back; live sources never are.

    Attributes:
        cut: whether there was more after `limit`.
        newest: the time and frame handed out last.
    """

    def __init__(self, source: FrameSource, limit: float, *, rush: bool = False) -> None:
        self.name, self.duration, self.live = source.name, source.duration, source.live
        self.cut = False
        self.newest: tuple[float, Frame] | None = None
        self._source = source
        self._limit = limit
        self._changed = threading.Condition()
        self._reached = 0.0
        self._rush = rush or source.live

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        for seconds, frame in self._source:
            if seconds > self._limit:
                self.cut = True
                return
            with self._changed:
                self._changed.wait_for(lambda at=seconds: self._may(at))  # type: ignore[misc]
            if self.closed:
                return
            self.newest = seconds, frame
            yield seconds, frame

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """Frames that a live source dropped."""
        return int(self._source.dropped)

    def reach(self, seconds: float) -> None:
        """Let frames through up to here: the player has come this far, in seconds."""
        with self._changed:
            self._reached = max(self._reached, seconds)
            self._changed.notify_all()

    def rush(self) -> None:
        """Hold nothing back any more."""
        with self._changed:
            self._rush = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and close the other source."""
        super().close()
        self._source.close()
        with self._changed:
            self._changed.notify_all()

    def _may(self, seconds: float) -> bool:
        return self._rush or self.closed or seconds <= self._reached + LEAD
