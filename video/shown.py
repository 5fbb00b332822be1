"""Pictures of a video file that stay: given at each grid time at which they are on screen.

The rule of `sampling.py`, for files: a frame that is shown at several grid times is given at its
own time for the first of them, and then at each further one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmkv.video.sampling import Grid

T = TypeVar("T")

_BEYOND = 60.0  # seconds that a picture may stay behind the declared end
_LONGEST = 3600.0  # seconds that it may stay where no end is declared


@dataclass(frozen=True, slots=True)
class Shown(Generic[T]):
    """A frame of a video file and the times that it stands for.

    Attributes:
        item: the frame.
        times: seconds: its own, then each further grid time while it stays. Made one by one, since
            a picture may stay for hours.
    """

    item: T
    times: Iterator[float]


class ShownSampler(Generic[T]):
    """The rule for video files, one frame behind: a frame's end is known when the next one is.

    A picture that stays is believed in up to a minute behind the declared end of the video, for an
    hour where no end is declared: a wrong time of the next frame must not make it endless.

    Args:
        fps: frames per second to choose; None chooses every frame, once and at its own time.
        end: seconds at which the video ends as declared; None: unknown.

    Attributes:
        cut: seconds of the first picture that stays for longer than is believed; None: there was
            none.
    """

    def __init__(self, fps: float | None, end: float | None = None) -> None:
        self._fps = fps
        self._end = end
        self._grid: Grid | None = None
        self._waiting: tuple[float, T] | None = None
        self._gap = 0.0
        self.cut: float | None = None

    def push(self, seconds: float, item: T) -> Shown[T] | None:
        """Add a frame; times must rise.

        Returns:
            the frame before it with its times, if it has any.
        """
        if self._fps is None:
            return Shown(item, iter((seconds,)))
        if self._grid is None or self._waiting is None:
            self._grid = Grid(self._fps, seconds)
            self._waiting = seconds, item
            return None
        shown = self._show(self._grid, self._waiting, seconds)
        self._gap = seconds - self._waiting[0]
        self._waiting = seconds, item
        return shown

    def finish(self, until: float | None = None) -> Shown[T] | None:
        """End the video.

        Args:
            until: seconds until which the last frame is shown; None: for the interval before it.

        Returns:
            the last frame with its times, if it has any.
        """
        if self._grid is None or self._waiting is None:
            return None
        waiting, self._waiting = self._waiting, None
        if until is None or until <= waiting[0]:
            until = waiting[0] + self._gap
        return self._show(self._grid, waiting, until)

    def _show(self, grid: Grid, frame: tuple[float, T], until: float) -> Shown[T] | None:
        own, item = frame
        # the first frame has used grid time 0, even where the second is within its tolerance
        first = 0 if own == grid.start else max(1, grid.before(own))
        longest = self._longest(own)
        if until > longest:
            self.cut = own if self.cut is None else self.cut
        if own != grid.start and grid.before(until) <= first:
            return None
        return Shown(item, _times(grid, own, first, grid.before(min(until, longest))))

    def _longest(self, own: float) -> float:
        if self._end is None:
            return own + _LONGEST
        return max(self._end, own) + _BEYOND


def _times(grid: Grid, own: float, first: int, stop: int) -> Iterator[float]:
    yield own
    for number in range(first + 1, stop):
        yield grid.start + number / grid.fps


def shown(
    frames: Iterable[tuple[float, T]], sampler: ShownSampler[T], until: Callable[[], float | None]
) -> Iterator[Shown[T]]:
    """Choose among the frames of a video file.

    Args:
        frames: `(seconds, frame)`; times must rise.
        sampler: a new one.
        until: asked after the last frame: seconds until which it is shown, None if unknown.

    Yields:
        the chosen frames with their times.
    """
    for seconds, item in frames:
        if (one := sampler.push(seconds, item)) is not None:
            yield one
    if (one := sampler.finish(until())) is not None:
        yield one
