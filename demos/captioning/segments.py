"""Where one segment of a video ends and the next begins, decided frame by frame."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mmkv.video import Frame

_SLACK = 1e-3  # seconds; times in files are rounded


class Cutter(ABC):
    """Sees every frame once, in order."""

    @abstractmethod
    def begins(self, seconds: float, frame: Frame) -> bool:
        """Return whether a new segment begins with this frame.

        Args:
            seconds: the frame's time.
            frame: uint8 RGB `[H, W, 3]`. What is returned for the first one does not matter.
        """


class Every(Cutter):
    """Segments of a fixed length, counted from the first frame.

    Args:
        length: of a segment, in seconds.
    """

    def __init__(self, length: float) -> None:
        self._length = length
        self._first: float | None = None
        self._number = 0

    def begins(self, seconds: float, frame: Frame) -> bool:
        """Return whether this frame's time is in another segment than the last one's."""
        if self._first is None:
            self._first = seconds
        number = int((seconds - self._first + _SLACK) // self._length)
        changed, self._number = number != self._number, number
        return changed


class Spans:
    """Gathers frames into segments: seconds of the first and last frame, and number of frames.

    A segment holds a multiple of `patch` frames, so that a model that takes frames in pairs never
    has one pair in two segments; the last segment may be shorter.

    Args:
        cutter: decides where segments begin.
        patch: frames that the model takes together.
    """

    def __init__(self, cutter: Cutter, patch: int) -> None:
        self._cutter = cutter
        self._patch = patch
        self._frames = 0
        self._due = False
        self._first = self._last = 0.0
        self._held = 0  # frames of the open segment

    def add(self, seconds: float, frame: Frame) -> tuple[float, float, int] | None:
        """Add a frame; returns the segment that ended before it, if one did."""
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
        """End the open segment and return it; None if there is none."""
        if not self._held:
            return None
        span = (self._first, self._last, self._held)
        self._held = 0
        return span
