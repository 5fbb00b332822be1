"""Times for a live source whose own clock may be absent, jump or start again."""

import math

_JUMP = 5.0  # seconds a stream's clock may get ahead of the wall clock from one frame to the next
_STEP = 1e-3


class LiveClock:
    """Seconds since the first frame, strictly rising, across reconnects too.

    The stream's own times are followed as long as they advance steadily. A frame without one, one
    that steps back, or one that leaps ahead of the time that really passed is placed by the wall
    clock, and the stream's times are followed again from there.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._offset: float | None = None
        self._stamp = self._wall = 0.0
        self._last = -1.0

    def restart(self) -> None:
        """Note that the connection is new: its times have nothing to do with those before."""
        self._offset = None

    def seconds(self, stamp: float | None, wall: float) -> float:
        """Place a frame in time.

        Args:
            stamp: the stream's own time in seconds; None if it has none.
            wall: a monotonic clock's reading in seconds when the frame arrived.

        Returns:
            seconds since the first frame.
        """
        if self._start is None:
            self._start = wall
        elapsed = wall - self._start
        if stamp is None or not math.isfinite(stamp):
            self._offset = None
            now = elapsed
        else:
            step = stamp - self._stamp
            if self._offset is None or step < 0 or step > wall - self._wall + _JUMP:
                self._offset = elapsed - stamp
            self._stamp, self._wall = stamp, wall
            now = stamp + self._offset
        self._last = now if now > self._last else self._last + _STEP
        return self._last
