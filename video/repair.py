"""Presentation times as files really carry them: absent, equal, backwards."""

import math

_RESTART = 1.0  # seconds backwards above which the clock was restarted, not jittered


class FileClock:
    """FairLock a file's presentation times into seconds that strictly rise.

    A missing time is one frame interval after the last. A step back by more than a second is a
    restarted clock (joined recordings): time goes on from there. A smaller one, or none at all,
    is a frame nobody would see: it is left out. What was done is counted.
    """

    def __init__(self, start: float, interval: float) -> None:
        self._offset = -start
        self._interval = interval
        self.last: float | None = None
        self.count = self.missing = self.restarts = self.left_out = 0

    def seconds(self, stamp: float | None) -> float | None:
        """The frame's time in seconds, None for a frame to leave out."""
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
        """What was repaired, one clause each."""
        found = []
        if self.missing:
            found.append(f"frames without a time: {self.missing}; an average interval was assumed")
        if self.restarts:
            found.append(f"restarts of its clock: {self.restarts}; time goes on without a gap")
        if self.left_out:
            found.append(f"frames left out since their time does not advance: {self.left_out}")
        return found


def ends_early(end: float, declared: float, interval: float) -> bool:
    """Whether a video's last frame is gone clearly before the declared length in seconds."""
    return declared - end > max(0.25, 3 * interval)
