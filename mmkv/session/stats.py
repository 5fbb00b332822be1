"""Counters of a stream."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mmkv.encode.state import StreamState


@dataclass(frozen=True, slots=True, repr=False)
class Stats:
    """What a stream has seen and what it holds.

    Attributes:
        frames: frames encoded or waiting.
        seconds: time of the newest; None before the first.
        tokens_per_frame: tokens of a frame in the language model, text included.
        fps: frames per second of video so far.
        bytes_per_frame: keys and values of one frame, unpacked.
        gb_per_hour: what an hour of this video takes at this rate (10^9 bytes), as it is packed.
        window_bytes: device memory of the window.
        state_bytes: device memory of the state that layers without archived keys and values carry:
            now and, up to 256 MiB each, before the newest frames.
        snapshot_bytes: host memory of that state's snapshots and of what is kept between them;
            those in a store are counted as `archive_bytes` and `disk_bytes`.
        archive_bytes: host memory of archived frames.
        index_bytes: memory of their summaries.
        archived_frames: how many are archived.
        forgotten_frames: how many have been forgotten.
        codec: how archived frames are packed.
        bits_per_element: what an element of their keys and values takes, scales and means
            included; None before any are packed.
        keep_ratio: share of archived frames' tokens that was really kept, text included; None
            before any are packed.
        resident_bytes: device memory of the packed past, where all of it is kept there.
        answer_bytes: device memory that answers are generated in, those under way and the next
            one's, of all streams of the model.
        timings: seconds spent so far per stage.
        disk_bytes: what the store takes; 0 without one.
        backlog_bytes: what of it is not written yet; where that is much, encoding waits.
        reads: how many pieces of frames questions found in memory, found because they had been
            read ahead, and waited for the disk for.
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
    codec: str = "fp16"
    bits_per_element: float | None = None
    keep_ratio: float | None = None
    state_bytes: int = 0
    snapshot_bytes: int = 0
    resident_bytes: int = 0
    answer_bytes: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    disk_bytes: int = 0
    backlog_bytes: int = 0
    reads: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        from mmkv.config.units import size

        at = "" if self.seconds is None else f" to {self.seconds:.1f} s"
        bits = self.bits_per_element
        packed = "" if bits is None else f" at {bits:.2f} bits per element"
        parts = [
            f"window {size(self.window_bytes)}",
            f"archive {size(self.archive_bytes)}{packed}",
            f"index {size(self.index_bytes)}",
        ]
        if self.state_bytes:
            parts.append(f"state {size(self.state_bytes + self.snapshot_bytes)} with snapshots")
        if self.disk_bytes:
            parts.append(f"disk {size(self.disk_bytes)}")
        if self.resident_bytes:
            parts.append(f"resident {size(self.resident_bytes)}")
        if self.answer_bytes:
            parts.append(f"answers {size(self.answer_bytes)}")
        return f"<Stats {self.frames} frames{at}: {', '.join(parts)}>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        return asdict(self)


def collect(state: StreamState, resident_bytes: int = 0, answer_bytes: int = 0) -> Stats:
    """Count what a stream holds now; its resident past and answers are counted by the caller."""
    archive, window, shape = state.archive, state.window, state.adapter.shape
    newest = archive.last
    per_frame = newest.tokens / state.adapter.temporal_patch if newest else 0.0
    element = torch.empty((), dtype=state.adapter.dtype).element_size()
    token = state.adapter.elements * element
    bits = archive.bits_per_element
    packed = token if bits is None else shape.elements * bits / 8 * (archive.kept or 1)
    first, last = state.span or (None, None)
    span = None if first is None or last is None or last <= first else last - first
    fps = None if span is None else (state.frames - 1) / span
    forgotten = archive.oldest.frame if archive.oldest else 0
    kept = newest.frame + newest.frames - forgotten if newest else 0
    return Stats(
        frames=state.frames,
        seconds=last,
        tokens_per_frame=per_frame,
        fps=fps,
        bytes_per_frame=int(per_frame * token),
        gb_per_hour=None if fps is None else per_frame * packed * fps * 3600 / 1e9,
        window_bytes=0 if window is None else window.nbytes,
        archive_bytes=archive.nbytes,
        index_bytes=archive.index_bytes,
        archived_frames=kept,
        forgotten_frames=forgotten,
        codec=archive.codec.name,
        bits_per_element=bits,
        keep_ratio=archive.kept,
        state_bytes=state.state_bytes,
        snapshot_bytes=state.snapshot_bytes,
        resident_bytes=resident_bytes,
        answer_bytes=answer_bytes,
        timings=dict(state.timings),
        disk_bytes=0 if state.store is None else state.store.nbytes,
        backlog_bytes=0 if archive.sink is None else archive.sink.nbytes,
        reads=asdict(archive.reads),
    )
