"""Video files through OpenCV, read forward only: its seeking by frame number is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkv.video.camera import quiet_opencv
from mmkv.video.errors import VideoError
from mmkv.video.frames import check_size, shrink
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.repair import FileClock, ends_early
from mmkv.video.shown import ShownSampler, shown
from mmkv.video.source import Frame

if TYPE_CHECKING:
    from mmkv.video.expected import Expected

Timed = tuple[float, Frame]

_MAX_WAITING = 16  # frames; no codec reorders more


class OpenCvFile(QueuedSource):
    """A video file read by OpenCV.

    Where PyAV has looked at the file, times are those of its packets, and PyAV reads on where
    OpenCV stops or loses its place; elsewhere they are OpenCV's own, counted from the first frame.

    Args:
        path: the file.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.
        expected: what PyAV found in the file.

    Raises:
        VideoError: on opening, OpenCV cannot open it or its frames are absurdly large; while
            reading, not a single frame can be read.
        Unfit: its first frame is not the expected one.
    """

    def __init__(
        self,
        path: str,
        name: str,
        *,
        fps: float | None,
        max_side: int | None = None,
        expected: Expected | None = None,
    ) -> None:
        import cv2

        super().__init__(name)
        capture, interval, self.duration = _open(path, name)
        declared = self.duration
        warnings, closing = self.warnings, self._closing
        show = shrink if expected is None else expected.show
        clock = FileClock(0.0, interval, end=declared)
        if expected is None:
            frames = _by_clock(capture, clock, name, closing.is_set)
        else:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            frames = _by_place(capture, expected, name, closing.is_set)
            try:
                begun = next(frames)
                expected.check_first(begun[1])
            except BaseException:
                capture.release()
                raise
            frames = _again(begun, frames)
            self.duration = expected.end

        def produce() -> Iterator[Timed]:
            last = -np.inf
            end = declared if expected is None else expected.header.duration
            sampler: ShownSampler[Frame] = ShownSampler(fps, end)
            try:
                for one in shown(frames, sampler, lambda: expected.until if expected else None):
                    picture = show(one.item, max_side)
                    for last in one.times:
                        yield last, picture
            except VideoError as error:
                if expected is None:
                    raise
                cause = str(error).removeprefix(f"{name}: ")
            else:
                if closing.is_set():
                    return
                if expected is not None:
                    warnings.extend(expected.ending())
                    return
                warnings.extend(f"{name}: {cause}" for cause in clock.warnings())
                end = (clock.last or 0.0) + interval
                if declared is not None and ends_early(end, declared, interval):
                    warnings.append(
                        f"{name}: the file ends early at {end:.1f} s; {clock.count} frames were "
                        f"read (it declares {declared:.1f} s)"
                    )
                return
            finally:
                capture.release()
            warnings.append(f"{name}: {cause}; PyAV read what comes after {max(last, 0):.1f} s")
            yield from expected.rest(last, fps, max_side, warnings, closing)

        self._start(ReadAhead(produce, name))


def _open(path: str, name: str) -> tuple[Any, float, float | None]:
    """The opened file, seconds between its frames on average, and its declared length."""
    import cv2

    with quiet_opencv():
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise VideoError(f"{name}: OpenCV cannot open it as a video; it may be damaged")
    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if width and height:
        check_size(width, height, name)
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    interval = 1 / rate if rate > 0 else 1 / 25
    return capture, interval, count / rate if rate > 0 and count > 0 else None


def _by_place(
    capture: Any, expected: Expected, name: str, stopped: Callable[[], bool]
) -> Iterator[Timed]:
    """Frames with the times of their packets.

    The last few often come without a time, as 0: they wait until another one has a time, or until
    the end shows that none is missing.

    Raises:
        VideoError: a frame has a time that no packet has, or frames are missing.
    """
    times = expected.times.tolist()
    place, zero = 0, 0.0
    waiting: list[Frame] = []
    for stamp, frame in _grab(capture, name, stopped):
        zero = zero if place else stamp - times[0]
        waiting.append(frame)
        known = stamp > 0 or not place
        if known and expected.find(stamp - zero) != place + len(waiting) - 1:
            raise VideoError(f"{name}: OpenCV lost a frame or gave it a wrong time")
        if len(waiting) > _MAX_WAITING:
            raise VideoError(f"{name}: OpenCV does not know when its frames are shown")
        if known:
            yield from zip(times[place:], waiting, strict=False)
            place, waiting = place + len(waiting), []
    found = place + len(waiting)
    if found != len(times) and not stopped():
        raise VideoError(f"{name}: OpenCV gave {found} of {len(times)} frames")
    yield from zip(times[place:], waiting, strict=False)


def _by_clock(
    capture: Any, clock: FileClock, name: str, stopped: Callable[[], bool]
) -> Iterator[Timed]:
    """Frames with OpenCV's own times; one that has the time of the frame before it has none."""

    def stamped() -> Iterator[tuple[float | None, Frame]]:
        first = last = None
        for stamp, frame in _grab(capture, name, stopped):
            first = stamp if first is None else first
            yield (stamp - first if stamp != last else None), frame
            last = stamp

    yield from clock.timed(stamped())
    if clock.last is None and not stopped():
        raise VideoError(f"{name}: not a single frame could be decoded")


def _grab(capture: Any, name: str, stopped: Callable[[], bool]) -> Iterator[Timed]:
    """Each frame with what OpenCV says is its time."""
    import cv2

    while not stopped() and capture.grab():
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        good, frame = capture.retrieve()
        if good:
            check_size(frame.shape[1], frame.shape[0], name)
            yield stamp, np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _again(first: Timed, rest: Iterator[Timed]) -> Iterator[Timed]:
    yield first
    yield from rest
