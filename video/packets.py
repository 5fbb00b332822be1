"""When a file's frames are shown, as its packets say, before any frame but the first is decoded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from mmkv.video.container import explain, open_container, video_stream
from mmkv.video.expected import TOLERANCE, Expected, Unfit
from mmkv.video.hdr import is_hdr
from mmkv.video.header import Header, header
from mmkv.video.matroska import is_whole
from mmkv.video.picture import Look, Screen
from mmkv.video.pyav_file import Job, clock_of, last_until, read
from mmkv.video.source import Frame
from mmkv.video.stamps import MOST_REORDERED

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream


class _Packet(NamedTuple):
    stamp: int | None
    duration: int | None
    hidden: bool


def expect(job: Job) -> Expected:
    """Read a file's packets, without decoding them, and decode its first frame.

    Args:
        job: how PyAV would read it.

    Raises:
        VideoError: PyAV cannot read it either.
        Unfit: the packets do not say when the frames are shown, or how is not for other readers.
    """
    frames = cast(Generator[tuple[float, Frame]], read(job))
    with closing(frames):
        began, first = next(frames, (0.0, None))
    if job.header is None or first is None:
        raise job.error or Unfit("PyAV finds no frame")
    if not job.header.timed:
        raise Unfit("its format carries no times")
    with open_container(job.address, job.name, protocols=job.protocols) as container:
        stream = video_stream(container, job.name)
        facts = header(container, stream)
        numbered = container.format.name == "avi"  # see `mmkv.video.stamps`
        packets, look = _demux(container, stream, job.name, numbered)
        whole = job.head is None or is_whole(job.head, container.size)
        base = float(stream.time_base or 0)
        reorders = bool(stream.codec_context.has_b_frames) and not numbered
    shown = [packet for packet in packets if not packet.hidden]
    order = _order(shown, reorders)
    times = _on_the_clock([cast(int, shown[k].stamp) * base for k in order], facts)
    if abs(times[0] - began) > TOLERANCE:
        raise Unfit("the first frame has another time than the first packet")
    duration = shown[order[-1]].duration
    until = last_until(times[-1], duration * base if duration else None, facts, whole)
    hidden = len(packets) - len(shown)
    return Expected(job, facts, np.array(times), until, first, look, hidden)


def _demux(
    container: InputContainer, stream: VideoStream, name: str, numbered: bool
) -> tuple[list[_Packet], Look]:
    """All packets, and how the first frame is to be shown.

    Where packets are only numbered, in the order of decoding, theirs are the times of the frames
    in the order in which they are shown.
    """
    import av

    screen = Screen(stream, name)
    look: Look | None = None
    packets: list[_Packet] = []
    try:
        for packet in container.demux(stream):
            look = look or _look(stream, packet, screen)
            if packet.size:
                stamp = packet.dts if numbered else packet.pts
                packets.append(_Packet(stamp, packet.duration, packet.is_discard))
    except (av.error.FFmpegError, IndexError) as error:  # see `container.decode`
        raise Unfit(f"the packets cannot be read: {explain(error)}") from None
    if look is None:
        raise Unfit("PyAV finds no frame")
    return packets, look


def _look(stream: VideoStream, packet: Packet, screen: Screen) -> Look | None:
    """How a packet's frame is to be shown; None if it gives none."""
    import av

    try:
        frames = stream.decode(packet)
    except av.error.FFmpegError:
        return None
    if not frames:
        return None
    if frames[0].format.name == "pal8" or any(one.is_alpha for one in frames[0].format.components):
        raise Unfit("the pictures may be transparent")
    look = screen.look(frames[0])
    if is_hdr(look.transfer):
        raise Unfit("the pictures have a high dynamic range")
    return look


def _order(packets: list[_Packet], reorders: bool) -> list[int]:
    """Indices of packets in the order in which their frames are shown."""
    stamps = [packet.stamp for packet in packets if packet.stamp is not None]
    if not packets or len(stamps) < len(packets):
        raise Unfit("the packets do not say when their frames are shown")
    if reorders and len(stamps) > 1 and (np.diff(stamps) > 0).all():
        raise Unfit("the packets may have the times of decoding only")
    order = np.argsort(stamps, kind="stable")
    if (np.abs(order - np.arange(len(order))) > MOST_REORDERED).any():
        raise Unfit("its clock is set anew on the way")
    return [int(k) for k in order]


def _on_the_clock(stamps: list[float], facts: Header) -> list[float]:
    """Seconds as `pyav_file` counts them, of frames in the order in which they are shown."""
    clock = clock_of(facts)
    pairs: Iterator[tuple[float | None, None]] = ((stamp, None) for stamp in stamps)
    times = [seconds for seconds, _ in clock.timed(pairs)]
    if warnings := clock.warnings():
        raise Unfit("; ".join(warnings))
    return times
