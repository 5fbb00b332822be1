"""Frames from anything that can be iterated, such as a generator."""

from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any

import numpy as np

from mmkv.video.arrays import check_rising
from mmkv.video.errors import VideoError
from mmkv.video.frames import as_frame, describe, shrink
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.sampling import sample
from mmkv.video.source import Frame


class IteratorSource(QueuedSource):
    """Frames, or `(seconds, frame)` pairs, from the caller's iterable.

    The iterable runs in a thread of its own, a few frames ahead. What it raises arrives unchanged
    where the frames are read. Each frame is copied: the iterable may reuse its buffer.

    Args:
        frames: the iterable.
        fps: frames per second to choose; None for all.
        rate: frames per second of plain frames, which have no time.
        max_side: larger frames are scaled down to this many pixels a side.
    """

    def __init__(
        self, frames: Iterable[Any], *, fps: float | None, rate: float, max_side: int | None = None
    ) -> None:
        super().__init__("iterator")
        closing = self._closing

        def produce() -> Iterator[tuple[float, Frame]]:
            iterator = iter(frames)
            try:
                yield from sample(timed(iterator, rate, closing.is_set, max_side), fps)
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()

        self._start(ReadAhead(produce, self.name))


def timed(
    items: Iterator[Any],
    rate: float,
    stopped: Callable[[], bool],
    max_side: int | None = None,
) -> Iterator[tuple[float, Frame]]:
    """Check frames and their times.

    Args:
        items: frames, or `(seconds, frame)` pairs.
        rate: frames per second of plain frames.
        stopped: asked before every frame; True ends the iteration.
        max_side: larger frames are scaled down to this many pixels a side.

    Yields:
        `(seconds, frame)`, the frame uint8 `[H, W, 3]` in memory of its own.

    Raises:
        VideoError: an item is neither, a frame is not allowed, or a time does not rise.
    """
    last: float | None = None
    for index, item in enumerate(items):
        if stopped():
            return
        seconds, value = index / rate, item
        if isinstance(item, (tuple, list)):
            if len(item) != 2 or not isinstance(item[0], Real):
                raise VideoError(
                    "an iterator must give frames or (seconds, frame) pairs; "
                    f"item {index} is a {type(item).__name__} of {len(item)}: "
                    f"{', '.join(describe(part) for part in item[:4])}"
                )
            seconds, value = float(item[0]), item[1]
        check_rising(seconds, last, index, "iterator")
        last = seconds
        frame = shrink(as_frame(value, f"frame {index}"), max_side)
        yield seconds, np.array(frame) if np.shares_memory(frame, np.asarray(value)) else frame
