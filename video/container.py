"""PyAV containers: opened with limits, decoded in order, errors as one sentence."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmkv.video.errors import VideoError
from mmkv.video.frames import MAX_PIXELS, check_size
from mmkv.video.redact import Address

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# A local playlist must not make FFmpeg open network addresses, nor a remote one local files.
FILE_PROTOCOLS = "file,crypto,data"
NETWORK_PROTOCOLS = (
    "http,https,httpproxy,tcp,tls,udp,rtp,srtp,rtsp,rtsps,rtmp,rtmps,rtmpt,srt,crypto,data"
)

# FFmpeg asks web servers to close connections after an answer, and then asks again over one that
# such a server has closed without saying so. Kept open, or opened again, seeking does not fail.
_HTTP = {
    "multiple_requests": "1",
    "reconnect_on_network_error": "1",
    "reconnect_delay_max": "1",  # seconds
}

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


def open_container(
    address: str | Address,
    name: str,
    *,
    protocols: str,
    options: dict[str, str] | None = None,
    timeout: float | tuple[float, float] | None = None,
) -> InputContainer:
    """Open an address for reading.

    Args:
        address: a path, or a network address whose secrets stay out of messages.
        name: what to call it in messages.
        protocols: what FFmpeg may open, separated by commas.
        options: further options of FFmpeg.
        timeout: seconds without data after which it gives up; a pair is for opening and reading.

    Raises:
        VideoError: it cannot be opened. The message has `name` and the cause, but neither it nor
            `__cause__` or `__context__` ever holds `address`.
    """
    import av

    settings = {"protocol_whitelist": protocols, "max_pixels": str(MAX_PIXELS), **_HTTP}
    settings |= options or {}
    secret = address.secret if isinstance(address, Address) else address
    patience = timeout[0] if isinstance(timeout, tuple) else timeout
    start = time.monotonic()
    try:
        return av.open(secret, options=settings, timeout=timeout)
    except (av.error.FFmpegError, ValueError, UnicodeError) as error:
        cause = explain(error)
    if patience is not None and time.monotonic() - start >= patience:
        cause = f"no answer within {patience:g} s"  # some demuxers call this invalid data
    # outside the except block, so that PyAV's error, which prints the address, is not attached
    raise VideoError(f"{name}: cannot be opened as a video: {cause}")


def explain(error: BaseException) -> str:
    """Say what went wrong, without the address that FFmpeg's own message ends with."""
    import av

    if isinstance(error, av.error.ExitError):
        return "timed out waiting for data"
    if isinstance(error, av.error.InvalidDataError):
        return "its data is damaged, cut off or not a video at all"
    text = getattr(error, "strerror", None)
    return text if text else type(error).__name__


def is_end(container: InputContainer, error: BaseException) -> bool:
    """Whether an error only means that a server without a length has closed the connection."""
    return isinstance(error, OSError) and error.errno == errno.EIO and container.size < 0


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """Choose the container's best video stream and set it up for decoding.

    Args:
        container: an open container.
        name: what to call it in messages.

    Returns:
        the largest stream whose codec is known, of those with more than one frame where there
        are any; cover pictures are left out.

    Raises:
        VideoError: there is none, it is a still image, its codec is unknown, or its frames are
            absurdly large.
    """
    moving = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not moving:
        kinds = sorted({stream.type for stream in container.streams})
        found = f" (only {', '.join(kinds)})" if kinds else ""
        raise VideoError(f"{name}: there is no video stream in it{found}")
    if re.search(r"_pipe|^image2", container.format.name):
        raise VideoError(
            f"{name}: this is a still image, not a video; give a folder of images instead "
            "(an animated WebP can be read from a local file)"
        )
    known = [stream for stream in moving if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{name}: its video codec is unknown or not supported here")
    # an animated AVIF has its still picture as a stream too
    stream = max(known, key=lambda one: (one.frames != 1, (one.width or 0) * (one.height or 0)))
    if stream.width and stream.height:
        check_size(stream.width, stream.height, name)
    stream.thread_type = "SLICE"  # frame threads can deadlock when reading stops early
    return stream


def _is_cover(stream: VideoStream) -> bool:
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


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
    if leaps and duration is not None:  # taken from the last time in the file: not declared at all
        exact = False
        if container.size > 0 and container.size < _LEAST_BYTES * duration:
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


@dataclass(slots=True)
class Damage:
    """What could not be decoded.

    Attributes:
        packets: packets that could not be decoded.
        frames: frames that were decoded with errors.
        ended: why reading stopped before the end, if it did.
    """

    packets: int = 0
    frames: int = 0
    ended: str | None = None

    def warnings(self) -> list[str]:
        """List the damage, one clause each."""
        found = []
        if self.packets or self.frames:
            found.append(
                f"damaged data (packets that could not be decoded: {self.packets}, "
                f"frames with errors: {self.frames})"
            )
        if self.ended:
            found.append(f"reading stopped: {self.ended}")
        return found


def decode(
    container: InputContainer,
    stream: VideoStream,
    damage: Damage,
    stopped: Callable[[], bool],
) -> Iterator[VideoFrame]:
    """Decode every frame that can be decoded; never raises on damaged data.

    Args:
        container: the open container.
        stream: its stream, from `video_stream`.
        damage: counts what could not be decoded.
        stopped: asked before every packet; True ends decoding.

    Yields:
        frames in presentation order.
    """
    import av

    packets = container.demux(stream)
    while not stopped():
        try:
            packet = next(packets)
        except StopIteration:
            return
        except IndexError:  # PyAV's word for a packet of a stream that came up midway
            packets = container.demux(stream)
            continue
        except av.error.FFmpegError as error:
            damage.ended = None if is_end(container, error) else explain(error)
            packet = None
        try:
            frames = stream.decode(packet)  # None, or an empty last packet, flushes
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            damage.packets += 1
            frames = []
        for frame in frames:
            damage.frames += bool(frame.is_corrupt)
            yield frame
        if packet is None:
            return
