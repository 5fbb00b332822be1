"""What a container says about its video before any frame is decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

SEGMENTED = ("hls", "dash")  # playlists, which declare lengths
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_CLOCK_MAY_LEAP = 0x200  # AVFMT_TS_DISCONT
_LEAST_BYTES = 250  # per second; a length that makes a transport stream thinner is no length


@dataclass(frozen=True, slots=True)
class Header:
    """What a container says about its video before any frame is decoded.

    Attributes:
        start: seconds that a player's clock shows as 0.
        duration: declared length in seconds; None if unknown.
        exact: whether `duration` is the video stream's own and not, say, that of a longer sound
            track.
        interval: seconds between frames on average (a guess of 1/25 where nothing is declared).
        leaps: whether the format's clock may be set anew at any moment, as in transport streams.
        timed: whether the format carries times at all; those of raw H.264, say, are made up.
        rated: whether `interval` is the stream's own and not a guess.
    """

    start: float
    duration: float | None
    exact: bool
    interval: float
    leaps: bool = False
    timed: bool = True
    rated: bool = True

    def warnings(self) -> list[str]:
        """Say where times come from, if the file has none, in one clause."""
        if self.timed:
            return []
        rate = f"{round(1 / self.interval, 3):g} frames per second"
        if self.rated:
            return [f"it carries no times; its own rate of {rate} was used"]
        return [f"it carries neither times nor a rate; {rate} were assumed"]


def header(container: InputContainer, stream: VideoStream) -> Header:
    """Read start, length and rate as declared; any of them may be wrong."""
    base = float(stream.time_base or 0)
    first = stream.start_time * base if stream.start_time is not None else None
    start = container.start_time / 1e6 if container.start_time is not None else first
    # players begin at the container's start unless it is nonsense
    if start is None or (first is not None and not -1.0 <= first - start <= 3600.0):
        start = first or 0.0
    leaps = bool(int(container.format.flags) & _CLOCK_MAY_LEAP)
    timed = not makes_times_up(container)
    coded = stream.codec_context.framerate  # in the pictures' own headers, as of H.264 and H.265
    if not timed:  # FFmpeg's average is then a fixed 25
        rate, rated = float(coded or stream.guessed_rate or 0), bool(coded)
    else:
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        rated = rate > 0
    duration, exact = None, False
    if stream.duration is not None and stream.duration > 0:
        duration, exact = stream.duration * base, True
        if first is not None:
            duration += first - start
    elif (tagged := _tagged_duration(stream)) is not None:
        duration, exact = tagged, True
    elif container.duration is not None and container.duration > 0:
        duration, exact = container.duration / 1e6, len(container.streams) == 1
    if leaps and duration is not None and container.format.name not in SEGMENTED:
        exact = False  # it is taken from the last time in the file, and not declared at all
        if 0 < container.size < _LEAST_BYTES * duration:
            duration = None
    return Header(start, duration, exact, 1 / rate if rate > 0 else 1 / 25, leaps, timed, rated)


def makes_times_up(container: InputContainer) -> bool:
    """Whether the format has no times (MJPEG over HTTP, raw H.264): FFmpeg pretends 25 fps."""
    return bool(int(container.format.flags) & _NO_TIMESTAMPS)


def _tagged_duration(stream: VideoStream) -> float | None:
    """Matroska's per-stream DURATION tag, `00:01:02.345`."""
    found = re.fullmatch(
        r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip()
    )
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
