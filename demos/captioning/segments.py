"""Where one segment of a video ends and the next begins, decided frame by frame."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mmkv.video import Frame

_SLACK = 1e-3  # seconds; times in files are rounded


class Cutter(ABC):
    """Sees every frame once, in order."""

    @abstractmethod
    def begins(self, seconds: float, frame: Frame) -> bool:
        """Whether a new segment begins with this frame; not asked of the first one's meaning."""


class Every(Cutter):
    """Segments of a fixed length, counted from the first frame."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._first: float | None = None
        self._number = 0

    def begins(self, seconds: float, frame: Frame) -> bool:
        if self._first is None:
            self._first = seconds
        number = int((seconds - self._first + _SLACK) // self._length)
        changed, self._number = number != self._number, number
        return changed


class Spans:
    """Gathers frames to segments `(first, last)`, in seconds of their first and last frames.

    A segment holds a multiple of `patch` frames, so that a model that takes frames in pairs never
    has one pair in two segments; the last segment may be shorter.
    """

    def __init__(self, cutter: Cutter, patch: int) -> None:
        self._cutter = cutter
        self._patch = patch
        self._frames = 0
        self._due = False
        self._first = self._last = 0.0
        self._held = 0  # frames of the open segment

    def add(self, seconds: float, frame: Frame) -> tuple[float, float, int] | None:
        """Add a frame; the segment that it ends, with its number of frames, if any."""
        self._due = self._cutter.begins(seconds, frame) or self._due
        ended = None
        if self._due and self._held and self._frames % self._patch == 0:
            ended = self.rest()
        if not self._held:
            self._first, self._due = seconds, False
        self._last = seconds
        self._held += 1
        self._frames += 1
        return ended

    def rest(self) -> tuple[float, float, int] | None:
        """The segment that is open, which ends here."""
        if not self._held:
            return None
        span = (self._first, self._last, self._held)
        self._held = 0
        return span
