"""Which frames of a video stand for it at a requested rate.

Grid times are `start + k / fps` (k = 0, 1, …), starting at the first frame's time. A frame is on
screen from its own time until the next frame's, the last one for its duration. **A frame is
chosen when at least one grid time falls while it is on screen**, and keeps its own time. Times
count as equal within `tolerance`: containers such as Matroska round to milliseconds.

In a video file, what is on screen at a time exists at that time: a picture that stays for further
grid times is given at each of them too (`shown.py`). Frames that a caller makes are instants,
each used at most once: a sequence slower than `fps` gives every frame once (`OnScreenSampler`).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_TOLERANCE = 1e-3  # seconds; what Matroska and FLV round to


def check_fps(fps: float | None, name: str = "fps") -> float | None:
    """Check a rate.

    Args:
        fps: frames per second; None for every frame.
        name: what to call it in the error.

    Returns:
        the rate as a float, or None.

    Raises:
        ValueError: it is not a finite number above 0.
    """
    if fps is None:
        return None
    try:
        value = float(fps)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(fps, bool) or not math.isfinite(value) or value <= 0:
        raise ValueError(
            f"{name} must be a finite number of frames per second above 0, "
            f"or None for every frame; got {fps!r}"
        )
    return value


class Grid:
    """Numbers the grid times of one source by arithmetic, so that nothing drifts.

    Attributes:
        fps: grid times per second.
        start: seconds of grid time 0.
        tolerance: seconds within which two times count as equal.
    """

    def __init__(self, fps: float, start: float) -> None:
        self.fps = fps
        self.start = start
        self.tolerance = min(_TOLERANCE, 0.1 / fps)

    def before(self, seconds: float) -> int:
        """Count the grid times before `seconds`, without one that equals it."""
        return math.ceil((seconds - self.start - self.tolerance) * self.fps)

    def latest(self, seconds: float) -> int:
        """Return the number of the last grid time at or before `seconds`."""
        return math.floor((seconds - self.start + self.tolerance) * self.fps)


class OnScreenSampler(Generic[T]):
    """The rule above, one frame behind: a frame is decided on when the next one is known.

    Args:
        fps: frames per second to choose; None chooses every frame, at once.
    """

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._grid: Grid | None = None
        self._waiting: tuple[float, T] | None = None
        self._gap = 0.0

    def push(self, seconds: float, item: T) -> tuple[float, T] | None:
        """Add a frame; times must rise.

        Returns:
            the frame before it with its time, if that one is chosen.
        """
        if self._fps is None:
            return seconds, item
        if self._grid is None or self._waiting is None:
            self._grid = Grid(self._fps, seconds)
            self._waiting = seconds, item
            return None
        chosen = self._decide(self._grid, self._waiting, seconds)
        self._gap = seconds - self._waiting[0]
        self._waiting = seconds, item
        return chosen

    def finish(self, last_duration: float | None = None) -> tuple[float, T] | None:
        """End the video.

        Args:
            last_duration: seconds that the last frame is shown; None: the interval before it.

        Returns:
            the last frame with its time, if it is chosen.
        """
        if self._grid is None or self._waiting is None:
            return None
        waiting, self._waiting = self._waiting, None
        return self._decide(self._grid, waiting, waiting[0] + (last_duration or self._gap))

    def _decide(self, grid: Grid, frame: tuple[float, T], until: float) -> tuple[float, T] | None:
        if frame[0] == grid.start:
            return frame
        # the first frame has used grid time 0, even where the second is within its tolerance
        return frame if grid.before(until) > max(1, grid.before(frame[0])) else None


class LiveSampler:
    """For live sources, where waiting for the next frame would add delay.

    A frame is chosen when it is the first one at or after a grid time, which is known at once.

    Args:
        fps: frames per second to choose; None chooses every frame.
    """

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._grid: Grid | None = None
        self._next = 0

    def wants(self, seconds: float) -> bool:
        """Return whether the frame at `seconds` is chosen; times must rise."""
        if self._fps is None:
            return True
        if self._grid is None:
            self._grid = Grid(self._fps, seconds)
        number = self._grid.latest(seconds)
        if number < self._next:
            return False
        self._next = number + 1
        return True


def sample(frames: Iterable[tuple[float, T]], fps: float | None) -> Iterator[tuple[float, T]]:
    """Choose among instants at `fps` per second; each is kept back until the next is known.

    Args:
        frames: `(seconds, frame)`; times must rise.
        fps: frames per second to choose; None chooses every frame.

    Yields:
        the chosen pairs.
    """
    sampler: OnScreenSampler[T] = OnScreenSampler(fps)
    for seconds, item in frames:
        chosen = sampler.push(seconds, item)
        if chosen is not None:
            yield chosen
    last = sampler.finish()
    if last is not None:
        yield last
