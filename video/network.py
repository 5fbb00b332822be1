"""Network streams through PyAV: RTSP, HTTP (MJPEG, MPEG-TS, HLS), RTMP, SRT, UDP."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from mmkv.video.container import (
    NETWORK_PROTOCOLS,
    Damage,
    decode,
    open_container,
    video_stream,
)
from mmkv.video.errors import VideoError
from mmkv.video.header import SEGMENTED, makes_times_up
from mmkv.video.live import Connect
from mmkv.video.picture import Screen
from mmkv.video.recording import LOOK_SECONDS, Kind, kind_of
from mmkv.video.redact import Address
from mmkv.video.source import Frame

if TYPE_CHECKING:
    from av.container import InputContainer

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp")

_LONGEST_HOLD = 60.0  # seconds
_OPTIONS = {
    "rtsp_transport": "tcp",  # UDP loses packets silently
    "fflags": "nobuffer",
    "analyzeduration": "2000000",  # µs; 5 s of looking before the first frame is too long
}


def connect_network(
    address: Address, timeout: float, max_side: int | None, options: dict[str, str] | None = None
) -> Connect:
    """Make a function that connects to a network stream.

    Args:
        address: where it is.
        timeout: seconds without data after which connecting and reading fail.
        max_side: larger frames are scaled down to this many pixels a side.
        options: further options of FFmpeg, such as which formats it may read.

    Returns:
        a function for `LiveSource`, which raises VideoError where the stream cannot be opened or
        breaks off.
    """
    name = str(address)

    def connect(
        stopped: Callable[[], bool],
    ) -> Iterator[tuple[float | None, Callable[[], Frame]]]:
        with clean_logs(address) as flush, _open(address, timeout, options) as container:
            stream = video_stream(container, name)
            screen = Screen(stream, name, max_side)
            timed = not makes_times_up(container)
            damage = Damage()
            pace = _Pace() if container.format.name in SEGMENTED else None
            for frame in decode(container, stream, damage, stopped):
                flush()
                if pace is not None:
                    pace.wait(frame.time, stopped)
                yield frame.time if timed else None, partial(screen, frame)
            if damage.ended:
                raise VideoError(f"{name}: {damage.ended}")

    return connect


def look_at(address: Address, timeout: float) -> Kind:
    """Find out whether an address is a recording or a live stream.

    Args:
        address: where it is.
        timeout: seconds without data after which opening fails.

    Raises:
        VideoError: it cannot be opened.
    """
    begun = time.monotonic()
    limits = (timeout, min(timeout, LOOK_SECONDS))
    with clean_logs(address), _open(address, limits) as container:
        return kind_of(container, begun)


def _open(
    address: Address,
    timeout: float | tuple[float, float],
    options: dict[str, str] | None = None,
) -> InputContainer:
    settings = {**_OPTIONS, **(options or {})}
    return open_container(
        address, str(address), protocols=NETWORK_PROTOCOLS, options=settings, timeout=timeout
    )


class _Pace:
    """Holds frames back until they are due.

    HLS and DASH deliver seconds of video at once and then nothing: of each such burst only the
    newest frame would remain.
    """

    def __init__(self) -> None:
        self._lead: float | None = None

    def wait(self, stamp: float | None, stopped: Callable[[], bool]) -> None:
        """Return when the frame of stream time `stamp` is due, or soon after `stopped`."""
        if stamp is None:
            return
        if self._lead is None:
            self._lead = stamp - time.monotonic()
        ahead = stamp - time.monotonic() - self._lead
        if not 0 < ahead < _LONGEST_HOLD:  # late, or the stream's clock jumped
            self._lead = stamp - time.monotonic()
            return
        while not stopped() and (left := stamp - time.monotonic() - self._lead) > 0:
            time.sleep(min(left, 0.1))


@contextmanager
def clean_logs(address: Address) -> Iterator[Callable[[], None]]:
    """Send what FFmpeg logs in this thread to its usual loggers without the address's secrets.

    Yields:
        a function that passes on what has been logged so far.
    """
    import av.logging

    with av.logging.Capture(local=True) as lines:

        def flush() -> None:
            while lines:
                level, name, message = lines.pop(0)
                logger = logging.getLogger(f"libav.{name or 'generic'}")
                logger.log(av.logging.adapt_level(level), "%s", address.clean(message.strip()))

        try:
            yield flush
        finally:
            flush()
