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
