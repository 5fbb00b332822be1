"""Presentation times as files really carry them: absent, equal, backwards."""

import math

_RESTART = 1.0  # seconds backwards above which the clock was restarted, not jittered


class FileClock:
    """Turns a file's presentation times into seconds that strictly rise.

    A missing time is one frame interval after the last. A step back by more than a second is a
    restarted clock (joined recordings): time goes on from there. A smaller one, or none at all,
    is a frame nobody would see: it is left out. What was done is counted.
    """

    def __init__(self, start: float, interval: float) -> None:
        self._offset = -start
        self._interval = interval
        self._last: float | None = None
        self.missing = self.restarts = self.left_out = 0

    def seconds(self, stamp: float | None) -> float | None:
        """The frame's time in seconds, None for a frame to leave out."""
        if stamp is None or not math.isfinite(stamp):
            self.missing += 1
            now = 0.0 if self._last is None else self._last + self._interval
        else:
            now = stamp + self._offset
        if self._last is not None and now <= self._last:
            if self._last - now <= _RESTART:
                self.left_out += 1
                return None
            self.restarts += 1
            self._offset += self._last + self._interval - now
            now = self._last + self._interval
        self._last = now
        return now

    def warnings(self) -> list[str]:
        """What was repaired, one clause each."""
        found = []
        if self.missing:
            found.append(f"{self.missing} frames carry no time; one frame interval was assumed")
        if self.restarts:
            found.append(f"the clock restarts {self.restarts} times; time goes on without a gap")
        if self.left_out:
            found.append(f"{self.left_out} frames whose time does not advance were left out")
        return found
