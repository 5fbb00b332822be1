"""Webcams, and streams with `reader="opencv"`, through OpenCV."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mmkv.video.errors import VideoError
from mmkv.video.frames import check_size, shrink
from mmkv.video.live import Connect
from mmkv.video.redact import Address
from mmkv.video.source import Frame


def connect_opencv(
    device: int | str | Address, name: str, timeout: float, max_side: int | None
) -> Connect:
    """Make a function that connects to a webcam or an address through OpenCV.

    Frames get the time at which they arrive: OpenCV's own times of live sources are useless.

    Args:
        device: a webcam's index or path (`/dev/video…`), or a network address.
        name: what to call it in messages.
        timeout: seconds without data after which an address counts as lost.
        max_side: larger frames are scaled down to this many pixels a side.

    Returns:
        a function for `LiveSource`, which raises VideoError where the source cannot be opened or
        stops giving frames.
    """

    def connect(
        stopped: Callable[[], bool],
    ) -> Iterator[tuple[float | None, Callable[[], Frame]]]:
        with quiet_opencv():
            capture = _open(device, timeout)
        try:
            if not capture.isOpened():
                raise VideoError(f"{name}: cannot be opened; {_hint(device)}")
            while not stopped():
                if not capture.grab():
                    raise VideoError(f"{name}: no more frames come; {_hint(device)}")
                yield None, lambda: _retrieve(capture, name, max_side)
        finally:
            capture.release()

    return connect


def _open(device: int | str | Address, timeout: float) -> Any:
    import cv2

    if isinstance(device, Address):
        milliseconds = int(timeout * 1000)
        # Only FFmpeg: another backend would print the address, password and all.
        return cv2.VideoCapture(
            device.secret,
            cv2.CAP_FFMPEG,
            [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                milliseconds,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                milliseconds,
            ],
        )
    return cv2.VideoCapture(device)


def _retrieve(capture: Any, name: str, max_side: int | None) -> Frame:
    import cv2

    good, frame = capture.retrieve()
    if not good or frame is None:
        raise VideoError(f"{name}: a frame could not be read")
    check_size(frame.shape[1], frame.shape[0], name)
    if frame.ndim == 2:
        return shrink(np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB), dtype=np.uint8), max_side)
    return shrink(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8), max_side)


def _hint(device: int | str | Address) -> str:
    if isinstance(device, Address):
        return "check the address, the user name and password, and the network"
    return "check that the camera is plugged in and that no other program uses it"


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV, which prints a page to stderr where our error is one sentence.

    Yields:
        nothing; the earlier log level is restored afterwards.
    """
    import cv2

    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
