"""The time of a decoded frame at which it is shown, as its container has it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from mmkv.video.header import Header

MOST_REORDERED = 17  # frames; H.264 and H.265 keep at most 16 back


def stamps(
    container: InputContainer, stream: VideoStream, facts: Header
) -> Callable[[VideoFrame], float | None]:
    """Choose how the frames of a stream get their times.

    Args:
        container: the open container.
        stream: its stream.
        facts: what the container declares.

    Returns:
        a function from a frame, in the order of decoding, to the container's time in seconds; None
        where there is none.
    """
    if not facts.timed:
        numbers = itertools.count()
        return lambda frame: facts.start + next(numbers) * facts.interval
    if container.format.name == "avi":
        return DecodingOrder(stream)
    return lambda frame: frame.time


class DecodingOrder:
    """Times of a container that numbers its packets in the order of decoding only, such as AVI.

    With B-frames the time of a frame's own packet is not the time at which it is shown. But frames
    leave the decoder in the order in which they are shown, one for each packet that it is given,
    some packets late: the packet that comes in when a frame comes out is as late at every frame.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._base = float(stream.time_base or 0)
        self._begin = stream.start_time or 0
        self._late: int | None = None
        self._last: int | None = None
        self._step = 1

    def __call__(self, frame: VideoFrame) -> float | None:
        """Return the time of the next frame that left the decoder, in seconds."""
        if frame.dts is None:  # the packets are over: these are the ones that were kept back
            now = None if self._last is None else self._last + self._step
        else:
            if self._late is None:
                late = frame.dts - self._begin
                self._late = late if late <= MOST_REORDERED * (frame.duration or 1) else 0
            now = frame.dts - self._late
        if now is None:
            return frame.time
        if self._last is not None and now > self._last:
            self._step = now - self._last
        self._last = now
        return now * self._base
