"""Presentation times as files really carry them: absent, equal, backwards."""

import math

_RESTART = 1.0  # seconds backwards above which the clock was restarted, not jittered


class FileClock:
    """Turns a file's presentation times into seconds that strictly rise.

    A missing time is one frame interval after the last. A step back by more than a second is a
    restarted clock (joined recordings): time continues from there. A frame that steps back less,
    or does not advance, would never be seen: it is left out. What was done is counted.

    Args:
        start: the file's time in seconds that becomes 0.
        interval: seconds from one frame to the next, on average.

    Attributes:
        last: seconds of the newest frame; None before the first.
        count: frames that got a time.
        missing: frames without a time of their own.
        restarts: how often the clock was restarted.
        left_out: frames that were left out.
    """

    def __init__(self, start: float, interval: float) -> None:
        self._offset = -start
        self._interval = interval
        self.last: float | None = None
        self.count = self.missing = self.restarts = self.left_out = 0

    def seconds(self, stamp: float | None) -> float | None:
        """Return the frame's time in seconds, or None for a frame to leave out.

        Args:
            stamp: the file's time in seconds; None if the frame has none.
        """
        if stamp is None or not math.isfinite(stamp):
            self.missing += 1
            now = 0.0 if self.last is None else self.last + self._interval
        else:
            now = stamp + self._offset
        if self.last is not None and now <= self.last:
            if self.last - now <= _RESTART:
                self.left_out += 1
                return None
            self.restarts += 1
            self._offset += self.last + self._interval - now
            now = self.last + self._interval
        self.last = now
        self.count += 1
        return now

    def warnings(self) -> list[str]:
        """List what was repaired, one clause each."""
        found = []
        if self.missing:
            found.append(f"frames without a time: {self.missing}; an average interval was assumed")
        if self.restarts:
            found.append(f"restarts of its clock: {self.restarts}; time continues without a gap")
        if self.left_out:
            found.append(f"frames left out because their time does not advance: {self.left_out}")
        return found


def ends_early(end: float, declared: float, interval: float) -> bool:
    """Check whether a video ends clearly before its declared length.

    Args:
        end: seconds at which its last frame is over.
        declared: length in seconds that the file declares.
        interval: seconds from one frame to the next, on average.
    """
    return declared - end > max(0.25, 3 * interval)
