"""Whether an address is a recording, which ends, or a live stream, which does not.

A recording is read in full, like a file. It is one if

- its length is declared: seconds in the container, `#EXT-X-ENDLIST` in a playlist, or bytes by the
  server (`Content-Length`), with or without ranges; or
- without any of these, it arrives faster than in real time: its end, or more than 15 s of video
  within 2 s of opening it.

Cameras' JPEG streams and playlists without an end are live. What remains is live too, but over
when its connection ends without an error: nothing says that there is more.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING

from mmkv.video.container import is_end
from mmkv.video.header import SEGMENTED

if TYPE_CHECKING:
    from av.container import InputContainer

LOOK_SECONDS = 2.0  # of the wall clock
_AHEAD = 15.0  # seconds of video; live servers begin with what a player needs, about 5 s
_LIVE = ("mpjpeg", "sdp", "rtsp", "rtp")


class Kind(Enum):
    """What an address is."""

    RECORDING = "ends, is read in full"
    LIVE = "never ends, is connected to again"
    OPEN = "live until its connection ends"


def kind_of(container: InputContainer, begun: float) -> Kind:
    """Find out what a container on a network is; packets of it are read.

    Args:
        container: just opened, with a reading timeout of about `LOOK_SECONDS`.
        begun: the monotonic clock's seconds when opening it began.
    """
    name = container.format.name
    if name in _LIVE:
        return Kind.LIVE
    declared = container.duration is not None and container.duration > 0
    if name in SEGMENTED:  # the bytes would be those of the playlist
        return Kind.RECORDING if declared else Kind.LIVE
    if declared or container.size > 0:
        return Kind.RECORDING
    return Kind.RECORDING if _hurries(container, begun) else Kind.OPEN


def _hurries(container: InputContainer, begun: float) -> bool:
    """Whether the end, or much more than real time, arrives soon."""
    import av

    first: float | None = None
    packets = container.demux()
    while (passed := time.monotonic() - begun) < LOOK_SECONDS:
        try:
            packet = next(packets)
        except StopIteration:
            return True
        except IndexError:  # PyAV's word for a packet of a stream that came up midway
            packets = container.demux()
            continue
        except av.error.FFmpegError as error:
            return is_end(container, error)
        if packet.dts is None or packet.time_base is None:
            if packet.size == 0:  # the end
                return True
            continue
        seconds = float(packet.dts * packet.time_base)
        first = seconds if first is None else min(first, seconds)
        if seconds - first > passed + _AHEAD:
            return True
    return False
