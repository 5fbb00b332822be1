"""Video files (and files on a web server) through PyAV."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmkv.video.container import (
    FILE_PROTOCOLS,
    Damage,
    decode,
    open_container,
    video_stream,
)
from mmkv.video.errors import VideoError
from mmkv.video.header import Header, header
from mmkv.video.matroska import is_whole
from mmkv.video.picture import Screen
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.redact import Address
from mmkv.video.repair import FileClock, ends_early
from mmkv.video.shown import ShownSampler, shown
from mmkv.video.source import Frame
from mmkv.video.stamps import stamps

if TYPE_CHECKING:
    from av import VideoFrame


_LONGEST_REST = 600.0  # seconds that the last picture may stay, if the film before it is shorter


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
        head: the first bytes of a local file.
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
    head: bytes | None = None
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

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        yield from super().__iter__()
        if self._job.header is not None:  # a length that was unknown or wrong is known now
            self.duration = self._job.header.duration

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
        stamp = stamps(container, stream, job.header)
        frames = decode(container, stream, damage, job.stopped.is_set)
        whole = job.head is None or is_whole(job.head, container.size)
        stamped = ((stamp(frame), frame) for frame in frames)
        screen = Screen(stream, job.name, job.max_side, job.warnings)
        yield from _chosen(job, job.header, stamped, damage, whole, screen)
    finally:
        if container is not None:
            container.close()


def clock_of(facts: Header) -> FileClock:
    """Make the clock of a file from what its container declares."""
    end = None if facts.leaps else facts.duration
    return FileClock(facts.start, facts.interval, leaps=facts.leaps, end=end)


def last_until(at: float, own: float | None, facts: Header, whole: bool) -> float | None:
    """Say until when the last frame of a file is shown.

    Args:
        at: its time in seconds.
        own: seconds that it is shown by its own account; None if it has none.
        facts: what the container declares.
        whole: whether nothing of the file is missing.

    Returns:
        seconds; None: not said.
    """
    declared = facts.duration if facts.exact and whole else None
    end = at + (own or facts.interval)
    if declared is not None and end < declared <= at + max(at, _LONGEST_REST):
        return declared
    return end if own else None


class _Ending:
    """What the newest frame says about how the film ends, and a change of its size.

    Args:
        job: whose warnings get the change of size.
        facts: what the container declares.
        whole: asked at the end: whether nothing of the file is missing.
    """

    def __init__(self, job: Job, facts: Header, whole: Callable[[], bool]) -> None:
        self._job = job
        self._facts = facts
        self._whole = whole
        self._size: tuple[int, int] | None = None
        self._resized = False
        self._at = 0.0
        self._own: float | None = None  # seconds that the newest frame is shown by its own account
        self.end = 0.0

    def see(self, frames: Iterator[tuple[float, VideoFrame]]) -> Iterator[tuple[float, VideoFrame]]:
        """Pass frames on, looking at each."""
        for seconds, frame in frames:
            own = float(frame.duration * (frame.time_base or 0))
            self._at, self._own = seconds, own or None
            self.end = seconds + (own or self._facts.interval)
            self._note_size(seconds, (frame.width, frame.height))
            yield seconds, frame

    def until(self) -> float | None:
        """Seconds until which the last frame is shown; None: not said."""
        until = last_until(self._at, self._own, self._facts, self._whole())
        self.end = self.end if until is None else until
        return until

    def _note_size(self, seconds: float, size: tuple[int, int]) -> None:
        if self._size and self._size != size and not self._resized:
            self._resized = True
            self._job.warnings.append(
                f"{self._job.name}: the frame size changes at {seconds:.3f} s "
                f"from {self._size[0]}×{self._size[1]} to {size[0]}×{size[1]}"
            )
        self._size = size


def _chosen(
    job: Job,
    facts: Header,
    frames: Iterator[tuple[float | None, VideoFrame]],
    damage: Damage,
    whole: bool,
    screen: Screen,
) -> Iterator[tuple[float, Frame]]:
    clock = clock_of(facts)
    sampler: ShownSampler[VideoFrame] = ShownSampler(job.fps, facts.duration)
    ending = _Ending(job, facts, lambda: whole and not damage.warnings())
    for one in shown(ending.see(clock.timed(frames)), sampler, ending.until):
        picture = screen(one.item)
        for seconds in one.times:
            yield seconds, picture
    if job.stopped.is_set():
        return
    causes = [*damage.warnings(), *facts.warnings(), *clock.warnings()]
    if not clock.count:
        raise VideoError(
            f"{job.name}: not a single frame could be decoded"
            + (f" ({'; '.join(causes)})" if causes else "; the file holds no frames")
        )
    if sampler.cut is not None:
        causes.append(
            f"a picture stays from {sampler.cut:.1f} s for longer than is believed; it is shown "
            "for a part of that"
        )
    job.warnings.extend(f"{job.name}: {cause}" for cause in causes)
    if facts.duration is None or clock.restarts or ending.end > facts.duration + facts.interval:
        job.header = replace(facts, duration=ending.end)
    declared = facts.duration if facts.exact else None
    if declared is not None and ends_early(ending.end, declared, facts.interval):
        job.warnings.append(
            f"{job.name}: the file ends early at {ending.end:.1f} s; {clock.count} frames were "
            f"read (it declares {declared:.1f} s)"
        )
