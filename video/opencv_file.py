"""Video files through OpenCV, read forward only: its seeking by frame number is wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mmkv.video.camera import quiet_opencv
from mmkv.video.errors import VideoError
from mmkv.video.frames import check_size, shrink
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.repair import FileClock, ends_early
from mmkv.video.shown import ShownSampler, shown
from mmkv.video.source import Frame


class OpenCvFile(QueuedSource):
    """A video file read by OpenCV; times are counted from the first frame.

    Args:
        path: the file.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.

    Raises:
        VideoError: on opening, OpenCV cannot open it or its frames are absurdly large; while
            reading, not a single frame can be read.
    """

    def __init__(
        self, path: str, name: str, *, fps: float | None, max_side: int | None = None
    ) -> None:
        import cv2

        super().__init__(name)
        with quiet_opencv():
            capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise VideoError(f"{name}: OpenCV cannot open it as a video; it may be damaged")
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if width and height:
            check_size(width, height, name)
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.duration = declared = count / rate if rate > 0 and count > 0 else None
        interval = 1 / rate if rate > 0 else 1 / 25
        warnings, closing = self.warnings, self._closing

        def produce() -> Iterator[tuple[float, Frame]]:
            try:
                clock = FileClock(0.0, interval, end=declared)
                sampler: ShownSampler[np.ndarray] = ShownSampler(fps, declared)
                found = 0
                grabbed = clock.timed(_grab(capture, closing.is_set))
                for one in shown(grabbed, sampler, lambda: None):
                    found += 1
                    check_size(one.item.shape[1], one.item.shape[0], name)
                    rgb = np.asarray(cv2.cvtColor(one.item, cv2.COLOR_BGR2RGB), dtype=np.uint8)
                    picture = shrink(rgb, max_side)
                    for seconds in one.times:
                        yield seconds, picture
                if closing.is_set():
                    return
                if not found:
                    raise VideoError(f"{name}: not a single frame could be decoded")
                warnings.extend(f"{name}: {cause}" for cause in clock.warnings())
                end = (clock.last or 0.0) + interval
                if declared is not None and ends_early(end, declared, interval):
                    warnings.append(
                        f"{name}: the file ends early at {end:.1f} s; {clock.count} frames were "
                        f"read (it declares {declared:.1f} s)"
                    )
            finally:
                capture.release()

        self._start(ReadAhead(produce, name))


def _grab(capture: Any, stopped: Callable[[], bool]) -> Iterator[tuple[float, np.ndarray]]:
    import cv2

    first: float | None = None
    while not stopped() and capture.grab():
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        first = stamp if first is None else first
        good, frame = capture.retrieve()
        if good:
            yield stamp - first, frame
