"""A source encoded from its first frame to its last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmkv.encode.frames import chunks

if TYPE_CHECKING:
    from mmkv.session.stream import Stream

log = logging.getLogger("mmkv")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an encoding has got.

    Attributes:
        frames: encoded so far.
        seconds: time reached in the source.
        duration: of the source in seconds, if known.
        elapsed: wall-clock seconds.
        warnings: sentences on what was wrong with the source but did not stop the reading.
    """

    frames: int
    seconds: float
    duration: float | None
    elapsed: float
    warnings: tuple[str, ...] = ()


def encode(
    stream: Stream,
    source: Any,
    fps: float | None,
    reader: str,
    on_progress: Callable[[Progress], None] | None,
    live: bool | None = None,
) -> Progress:
    """Encode a source to its end; see `Stream.encode`."""
    from mmkv.video import open_source

    started = time.perf_counter()
    shift: float | None = None
    count, seconds = 0, 0.0
    with open_source(source, fps=fps, reader=reader, live=live) as frames:
        for chunk in chunks(frames, 1 if frames.live else stream.config.chunk_frames):
            if shift is None:
                shift = stream.continue_from(chunk[0][0], fps)
            stream.push([(at + shift, frame) for at, frame in chunk])
            count, seconds = count + len(chunk), chunk[-1][0]
            if on_progress is not None:
                elapsed = time.perf_counter() - started
                on_progress(Progress(count, seconds, frames.duration, elapsed))
        elapsed = time.perf_counter() - started
        for warning in frames.warnings:
            log.warning("%s", warning)
        return Progress(count, seconds, frames.duration, elapsed, tuple(frames.warnings))
