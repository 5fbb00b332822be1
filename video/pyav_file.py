"""Video files (and files on a web server) through PyAV."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmkv.video.container import (
    FILE_PROTOCOLS,
    Damage,
    Header,
    decode,
    header,
    open_container,
    to_rgb,
    video_stream,
)
from mmkv.video.errors import VideoError
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.redact import Address
from mmkv.video.repair import FileClock, ends_early
from mmkv.video.sampling import OnScreenSampler
from mmkv.video.source import Frame

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass
class Job:
    """What the decoding thread is given, and what it reports back.

    Attributes:
        address: what to open.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.
        protocols: what FFmpeg may open, separated by commas.
        options: further options of FFmpeg.
        timeout: seconds without data after which opening, and reading, fail.
        warnings: what went wrong without stopping the reading; complete at the end.
        stopped: set to end the thread.
        opened: set once `header` or `error` is known.
        header: what the container declares.
        error: why it could not be opened.
    """

    address: str | Address
    name: str
    fps: float | None
    max_side: int | None
    protocols: str = FILE_PROTOCOLS
    options: dict[str, str] | None = None
    timeout: tuple[float, float] | None = None
    warnings: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    header: Header | None = None
    error: VideoError | None = None


class PyAvFile(QueuedSource):
    """A video file, decoded ahead by a thread that owns the container.

    `warnings` is complete once the last frame has been read.

    Args:
        job: what to open and how.

    Raises:
        VideoError: on opening, it cannot be opened, has no video, or its frames are too large;
            while reading, not a single frame can be decoded.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job.name)
        self.warnings = job.warnings
        self._job = job
        self._start(ReadAhead(lambda: read(job), job.name))
        try:
            job.opened.wait()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if job.error is not None:
            self.close()
            raise job.error
        if job.header is not None:
            self.duration = job.header.duration

    def close(self) -> None:
        """Stop decoding, and close the container."""
        self._job.stopped.set()
        super().close()


def read(job: Job) -> Iterator[tuple[float, Frame]]:
    """Open, decode and close, in the calling thread.

    Args:
        job: what to open; an error on opening is reported in it and not raised.

    Yields:
        `(seconds, frame)` of the chosen frames.

    Raises:
        VideoError: not a single frame can be decoded.
    """
    container = None
    try:
        try:
            container = open_container(
                job.address,
                job.name,
                protocols=job.protocols,
                options=job.options,
                timeout=job.timeout,
            )
            stream = video_stream(container, job.name)
            job.header = header(container, stream)
        except VideoError as error:
            job.error = error
            return
        finally:
            job.opened.set()
        damage = Damage()
        frames = decode(container, stream, damage, job.stopped.is_set)
        yield from _chosen(job, job.header, frames, damage)
    finally:
        if container is not None:
            container.close()


def _chosen(
    job: Job, facts: Header, frames: Iterator[VideoFrame], damage: Damage
) -> Iterator[tuple[float, Frame]]:
    clock = FileClock(facts.start, facts.interval)
    sampler: OnScreenSampler[VideoFrame] = OnScreenSampler(job.fps)
    resized = False
    end = last = 0.0
    size: tuple[int, int] | None = None
    for frame in frames:
        seconds = clock.seconds(frame.time)
        if seconds is None:
            continue
        last = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0
        end = seconds + (last or facts.interval)
        if size and size != (frame.width, frame.height) and not resized:
            resized = True
            job.warnings.append(
                f"{job.name}: the frame size changes at {seconds:.3f} s "
                f"from {size[0]}×{size[1]} to {frame.width}×{frame.height}"
            )
        size = frame.width, frame.height
        chosen = sampler.push(seconds, frame)
        if chosen is not None:
            yield chosen[0], to_rgb(chosen[1], job.name, job.max_side)
    chosen = sampler.finish(last or None)
    if chosen is not None:
        yield chosen[0], to_rgb(chosen[1], job.name, job.max_side)
    if job.stopped.is_set():
        return
    causes = [*damage.warnings(), *clock.warnings()]
    if not clock.count:
        raise VideoError(
            f"{job.name}: not a single frame could be decoded"
            + (f" ({'; '.join(causes)})" if causes else "; the file holds no frames")
        )
    job.warnings.extend(f"{job.name}: {cause}" for cause in causes)
    declared = facts.duration if facts.exact else None
    if declared is not None and ends_early(end, declared, facts.interval):
        job.warnings.append(
            f"{job.name}: the file ends early at {end:.1f} s; {clock.count} frames were read "
            f"(it declares {declared:.1f} s)"
        )
