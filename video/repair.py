"""Presentation times as files really carry them: absent, equal, backwards, leaping ahead."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeGuard, TypeVar

T = TypeVar("T")

_GAP = 5.0  # seconds from frame to frame above which a clock that may leap has leapt
_BEYOND = 3600.0  # seconds behind the declared end from which on a time is nonsense
_LEAST = 1e-6  # seconds; what is closer together is one time
_AHEAD = 2  # frames looked ahead at where a time is in doubt


class FileClock:
    """Turns a file's presentation times into seconds that strictly rise, for every frame.

    A time that steps back, stands still or leaps ahead is judged by the two frames after it:

    - They go on from the frame before it: this one time is wrong, or two are swapped. It is
      replaced by one between its neighbours; the other frames keep theirs.
    - They go on from the new time: the clock was set anew (joined recordings, a counter that ran
      over). Time continues one interval after the last frame.
    - A leap ahead is a picture that stays, unless the format's clock may be set anew at any moment
      (`leaps`), or the new time is more than an hour behind the declared end: then it is closed.

    What was done is counted.

    Args:
        start: the file's time in seconds that becomes 0.
        interval: seconds from one frame to the next, on average.
        leaps: whether a gap of more than 5 seconds means that the clock was set anew.
        end: seconds at which the video ends as declared; None: unknown.

    Attributes:
        last: seconds of the newest frame; None before the first.
        count: frames that got a time.
        missing: frames without a time of their own.
        restarts: how often the clock was set anew.
        replaced: frames whose own time was wrong.
    """

    def __init__(
        self, start: float, interval: float, *, leaps: bool = False, end: float | None = None
    ) -> None:
        self._offset = -start
        self._interval = interval
        self._leaps = leaps
        self._end = math.inf if end is None else end
        self.last: float | None = None
        self.count = self.missing = self.restarts = self.replaced = 0

    def timed(self, frames: Iterable[tuple[float | None, T]]) -> Iterator[tuple[float, T]]:
        """Give every frame its time.

        Args:
            frames: the file's time in seconds (None if the frame has none) and the frame, in the
                order in which they are shown.

        Yields:
            seconds and the frame; up to two frames are held back where a time is in doubt.
        """
        rest = iter(frames)
        waiting: deque[tuple[float | None, T]] = deque()
        while waiting or (waiting := deque(islice(rest, 1))):
            stamp, frame = waiting.popleft()
            if self._doubtful(stamp):
                waiting.extend(islice(rest, _AHEAD - len(waiting)))
            self.last = self._place(stamp, [following for following, _ in waiting])
            self.count += 1
            yield self.last, frame

    def _doubtful(self, stamp: float | None) -> bool:
        if self.last is None:
            return False
        step = 0.0 if not _real(stamp) else stamp + self._offset - self.last
        return not _LEAST < step <= 2 * self._interval

    def _place(self, stamp: float | None, following: Sequence[float | None]) -> float:
        if not _real(stamp):
            self.missing += 1
            return 0.0 if self.last is None else self._between(following)
        now = stamp + self._offset
        if self.last is None:
            return now
        if self._is_wrong(now, [one + self._offset for one in following if _real(one)]):
            self.replaced += 1
            return self._between(following)
        step = now - self.last
        if _LEAST < step <= _GAP or (
            step > _GAP and not self._leaps and now <= self._end + _BEYOND
        ):
            return now  # a picture that stays
        self.restarts += 1
        self._offset += self.last + self._interval - now
        return self.last + self._interval

    def _is_wrong(self, now: float, following: Sequence[float]) -> bool:
        """Whether the frames after this one go on from the one before it, as if it had no time."""
        assert self.last is not None
        step = now - self.last
        if step <= _LEAST and not following:
            return True
        goes_on = [_LEAST < time - self.last <= _GAP for time in following]
        if step <= _LEAST:
            return any(goes_on)
        earlier = [on and time < now for on, time in zip(goes_on, following, strict=True)]
        return any(earlier) if step > _GAP else bool(earlier) and all(earlier)

    def _between(self, following: Sequence[float | None]) -> float:
        """One interval after the last frame, or less if the next frames' times are closer."""
        assert self.last is not None
        step = self._interval
        for place, stamp in enumerate(following, 2):
            if _real(stamp) and _LEAST < (ahead := stamp + self._offset - self.last) <= _GAP:
                step = min(step, ahead / place)
        return self.last + step

    def warnings(self) -> list[str]:
        """List what was repaired, one clause each."""
        found = []
        if self.missing:
            found.append(f"frames without a time: {self.missing}; an average interval was assumed")
        if self.restarts:
            found.append(
                f"restarts or leaps of its clock: {self.restarts}; time continues without a gap"
            )
        if self.replaced:
            found.append(
                f"frames whose time is wrong: {self.replaced}; they are shown between the frames "
                "around them"
            )
        return found


def _real(stamp: float | None) -> TypeGuard[float]:
    return stamp is not None and math.isfinite(stamp)


def ends_early(end: float, declared: float, interval: float) -> bool:
    """Check whether a video ends clearly before its declared length.

    Args:
        end: seconds at which its last frame is over.
        declared: length in seconds that the file declares.
        interval: seconds from one frame to the next, on average.
    """
    return declared - end > max(0.25, 3 * interval)
