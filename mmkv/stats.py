"""Counters of a stream."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mmkv.ingest import Ingest


@dataclass(frozen=True, slots=True)
class Stats:
    """What a stream has seen and what it holds.

    frames: frames encoded or waiting. seconds: time of the newest, None before the first.
    tokens_per_frame: tokens of a frame in the language model, text included.
    fps: frames per second of video so far. bytes_per_frame: keys and values of one frame.
    gb_per_hour: what an hour of this video takes at this rate (10^9 bytes).
    window_bytes: device memory of the window. archive_bytes: host memory of archived frames.
    index_bytes: memory of their summaries. archived_frames, forgotten_frames: counts.
    timings: seconds spent so far per stage.
    """

    frames: int
    seconds: float | None
    tokens_per_frame: float
    fps: float | None
    bytes_per_frame: int
    gb_per_hour: float | None
    window_bytes: int
    archive_bytes: int
    index_bytes: int
    archived_frames: int
    forgotten_frames: int
    timings: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def collect(ingest: Ingest) -> Stats:
    """The stats of a stream as it is now."""
    archive, window, shape = ingest.archive, ingest.window, ingest.adapter.shape
    newest = archive.last
    per_frame = newest.tokens / ingest.adapter.temporal_patch if newest else 0.0
    element = torch.empty((), dtype=ingest.adapter.dtype).element_size()
    token = shape.layers * 2 * shape.kv_heads * shape.head_dim * element
    first, last = ingest.span or (None, None)
    span = None if first is None or last is None or last <= first else last - first
    fps = None if span is None else (ingest.frames - 1) / span
    forgotten = archive.oldest.frame if archive.oldest else 0
    kept = newest.frame + newest.frames - forgotten if newest else 0
    return Stats(
        frames=ingest.frames,
        seconds=last,
        tokens_per_frame=per_frame,
        fps=fps,
        bytes_per_frame=int(per_frame * token),
        gb_per_hour=None if fps is None else per_frame * token * fps * 3600 / 1e9,
        window_bytes=0 if window is None else window.nbytes,
        archive_bytes=archive.nbytes,
        index_bytes=archive.index_bytes,
        archived_frames=kept,
        forgotten_frames=forgotten,
        timings=dict(ingest.timings),
    )
