"""Frames that are already in memory: arrays, tensors, lists of frames or PIL images."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mmkv.video.errors import VideoError
from mmkv.video.frames import as_frame, describe, shrink, to_bytes, to_numpy
from mmkv.video.sampling import sample
from mmkv.video.source import Frame, FrameSource


class ArraySource(FrameSource):
    """Frames of an array `[N, H, W, 3]` or of a list, at given times or at a steady rate.

    Args:
        frames: a uint8 array or tensor, or a sequence of frames or PIL images.
        fps: frames per second to choose; None for all.
        times: seconds of each frame; they must rise. None: frame `i` is at `i / rate`.
        rate: frames per second where there are no times.
        max_side: larger frames are scaled down to this many pixels a side.

    Raises:
        VideoError: the shape or dtype is wrong, there are no frames, or the times do not fit.
    """

    name = "array"

    def __init__(
        self,
        frames: Any,
        *,
        fps: float | None,
        times: Sequence[float] | None,
        rate: float,
        max_side: int | None = None,
    ) -> None:
        array = to_numpy(frames)
        if array is not None and (array.ndim != 4 or array.shape[3] != 3 or array.dtype != "uint8"):
            raise VideoError(
                f"an array must be RGB uint8 [N, H, W, 3]; got {describe(frames)}{to_bytes(array)}"
            )
        self._frames = array if array is not None else list(frames)
        if len(self._frames) == 0:
            raise VideoError(f"there are no frames in {describe(frames)}")
        self._times = check_times(times, len(self._frames), rate)
        last = self._times[-1] - self._times[-2] if len(self._times) > 1 else 1 / rate
        self.duration = self._times[-1] + last
        self._max_side = max_side
        self._chosen = sample(enumerate_times(self._times), fps)

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        for seconds, index in self._chosen:
            if self.closed:
                return
            frame = as_frame(self._frames[index], f"frame {index}")
            yield seconds, shrink(frame, self._max_side)

    def close(self) -> None:
        """Stop, and release the frames."""
        super().close()
        self._frames = []


def enumerate_times(times: Sequence[float]) -> Iterator[tuple[float, int]]:
    """Yield `(time, index)` pairs, as `sample` takes them."""
    return ((seconds, index) for index, seconds in enumerate(times))


def check_times(times: Sequence[float] | None, count: int, rate: float) -> list[float]:
    """Check times of frames, or make them up.

    Args:
        times: seconds of each frame, or None.
        count: number of frames.
        rate: frames per second that stand in for `times` where it is None.

    Returns:
        seconds of each frame.

    Raises:
        VideoError: there is not one finite time per frame, or they do not rise.
    """
    if times is None:
        return [index / rate for index in range(count)]
    seconds = [float(value) for value in times]
    if len(seconds) != count:
        raise VideoError(f"times must hold one number per frame: {len(seconds)} for {count} frames")
    for index, value in enumerate(seconds):
        check_rising(value, seconds[index - 1] if index else None, index, "times")
    return seconds


def check_rising(value: float, last: float | None, index: int, name: str) -> None:
    """Refuse a time that is not finite or not later than the one before it.

    Args:
        value: the frame's time in seconds.
        last: time of the frame before it; None for the first.
        index: the frame's number, for the message.
        name: what to call the times in the message.

    Raises:
        VideoError: with the frame's index and both times.
    """
    if not math.isfinite(value):
        raise VideoError(f"{name}: the time of frame {index} is {value}; it must be finite seconds")
    if last is not None and value <= last:
        raise VideoError(
            f"{name}: times must rise, but frame {index} at {value} s follows one at {last} s"
        )
