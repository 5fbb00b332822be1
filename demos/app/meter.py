"""What a stream costs, measured repeatedly in memory of a fixed size."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmkv import Stats

POINTS = 240
SPAN = 5.0  # seconds that a rate is taken over


@dataclass(frozen=True, slots=True)
class Point:
    """Bytes at a moment of the stream.

    Attributes:
        seconds: of the stream.
        window: on the device.
        host: in host memory.
        disk: in the store.
        everything: what the window would take if every frame had stayed in it.
    """

    seconds: float
    window: int
    host: int
    disk: int
    everything: int


class Meter:
    """Frames per second, and memory over the stream's time; thinned out when there are many points.

    Args:
        on_gpu: whether the device has memory of its own.
        clock: seconds that only rise.

    Attributes:
        points: memory so far, oldest first.
    """

    def __init__(self, *, on_gpu: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_gpu = on_gpu
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque()
        self._gap = 0.0
        self.points: list[Point] = []

    def sample(self, stats: Stats) -> None:
        """Take a measurement."""
        now = self._clock()
        self._counts.append((now, stats.frames))
        while len(self._counts) > 2 and self._counts[1][0] <= now - SPAN:
            self._counts.popleft()
        if stats.seconds is None:
            return
        if self.points and stats.seconds - self.points[-1].seconds <= self._gap:
            return
        self.points = [*self.points, self.point(stats)]
        if len(self.points) > POINTS:
            self.points = self.points[::2]
            self._gap = (self.points[-1].seconds - self.points[0].seconds) / len(self.points)

    def point(self, stats: Stats) -> Point:
        """Say where the stream's memory is; the index is on the device, which may be the host."""
        index = stats.index_bytes
        return Point(
            stats.seconds or 0.0,
            stats.window_bytes + stats.resident_bytes + (index if self._on_gpu else 0),
            stats.archive_bytes + (0 if self._on_gpu else index),
            stats.disk_bytes,
            stats.frames * stats.bytes_per_frame,
        )

    @property
    def frames_per_second(self) -> float:
        """Encoded per second over the last few seconds."""
        if len(self._counts) < 2:
            return 0.0
        (began, first), (ended, last) = self._counts[0], self._counts[-1]
        return 0.0 if ended <= began else (last - first) / (ended - began)
