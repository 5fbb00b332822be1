"""What captioning one video gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a video and its caption.

    Attributes:
        start: seconds.
        end: seconds; where the next segment starts.
        caption: what happens in it.
        frames: frames looked at in it.
        complete: whether the caption ended by itself, not at `max_new_tokens`.
        thumbnail: a small JPEG of its middle frame, where asked for.
    """

    start: float
    end: float
    caption: str
    frames: int
    complete: bool = True
    thumbnail: bytes | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain types, for JSON, without the thumbnail."""
        found = {"start": round(self.start, 3), "end": round(self.end, 3), "caption": self.caption}
        return found if self.complete else {**found, "complete": False}


@dataclass(frozen=True, slots=True)
class Captions:
    """One video's captions.

    Attributes:
        name: of the video.
        caption: of the whole video; "" where none was asked for.
        segments: in order of time, without gaps.
        duration: seconds.
        frames: frames looked at.
        bits_per_element: of the packed past.
        warnings: about the file, and captions that were cut off.
        timings: seconds spent on decode (waiting for frames), encode, captions, summary and in
            all ("total").
    """

    name: str
    caption: str
    segments: tuple[Segment, ...]
    duration: float
    frames: int
    bits_per_element: float | None = None
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        from mmkv.config.units import counted

        summary = self.caption if len(self.caption) <= 60 else self.caption[:57] + "..."
        parts = f"{counted(len(self.segments), 'segment')}, {self.duration:.1f} s"
        return f"<Captions of {self.name}: {parts}, {summary!r}>"

    def __str__(self) -> str:
        from mmkv.config.units import clock

        lines = [f"{clock(s.start)}-{clock(s.end)}  {s.caption}" for s in self.segments]
        return "\n".join([self.caption, *lines] if self.caption else lines)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain types, for JSON, without the thumbnails."""
        return {
            "caption": self.caption,
            "segments": [segment.to_dict() for segment in self.segments],
            "duration": round(self.duration, 3),
            "frames": self.frames,
            "bits_per_element": self.bits_per_element,
            "warnings": list(self.warnings),
            "timings": {name: round(seconds, 4) for name, seconds in self.timings.items()},
        }

    def _repr_html_(self) -> str:
        return _html(self)


def _html(found: Captions) -> str:
    """A summary, and a table of segments."""
    from mmkv.answer.html import picture
    from mmkv.config.units import clock

    rows = "".join(
        f"<tr><td>{picture(segment.thumbnail)}</td>"
        f"<td style='white-space:nowrap'>{clock(segment.start)}-{clock(segment.end)}</td>"
        f"<td style='text-align:left'>{escape(segment.caption)}</td></tr>"
        for segment in found.segments
    )
    head = f"<p><b>{escape(found.caption)}</b></p>" if found.caption else ""
    return f"<div><p><small>{escape(found.name)}</small></p>{head}<table>{rows}</table></div>"
