"""A row's segments as subtitles: SubRip and WebVTT."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMATS = ("srt", "vtt")


def subtitles(segments: Sequence[dict[str, Any]], format: str) -> str:
    """The text of a subtitle file.

    Args:
        segments: with start and end in seconds, and caption. format: "srt" or "vtt".
    """
    cues = []
    for number, segment in enumerate(segments, 1):
        mark = "," if format == "srt" else "."
        span = f"{_clock(segment['start'], mark)} --> {_clock(segment['end'], mark)}"
        cues.append(f"{number}\n{span}\n{_text(segment['caption'], format)}\n")
    head = "WEBVTT\n\n" if format == "vtt" else ""
    return head + "\n".join(cues)


def write_subtitles(row: dict[str, Any], folder: Path, format: str) -> Path:
    """Write a row's subtitles, unless they are there; the file appears whole or not at all."""
    stem = re.sub(r"[^\w.-]+", "_", Path(row["path"]).stem)[:80] or "video"
    target = folder / f"{stem}.{row['id'][:8]}.{format}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    spare = target.with_name(f".{target.name}.new")
    spare.write_text(subtitles(row["segments"], format), encoding="utf-8")
    os.replace(spare, target)
    return target


def _clock(seconds: float, mark: str) -> str:
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}{mark}{thousandths:03}"


def _text(caption: str, format: str) -> str:
    lines = [" ".join(line.split()) for line in caption.splitlines()]
    text = "\n".join(line for line in lines if line)  # an empty line would end the cue
    if format == "vtt":
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("-->", "->")
