"""A row's segments as subtitles: SubRip and WebVTT."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

FORMATS = ("srt", "vtt")


def subtitles(segments: Sequence[dict[str, Any]], format: str) -> str:
    """Write the text of a subtitle file.

    Args:
        segments: with start and end in seconds, and caption.
        format: "srt" or "vtt".
    """
    cues = []
    for number, segment in enumerate(segments, 1):
        mark = "," if format == "srt" else "."
        span = f"{_clock(segment['start'], mark)} --> {_clock(segment['end'], mark)}"
        cues.append(f"{number}\n{span}\n{_text(segment['caption'], format)}\n")
    head = "WEBVTT\n\n" if format == "vtt" else ""
    return head + "\n".join(cues)


def write_subtitles(row: dict[str, Any], folder: Path, format: str, *, anew: bool = True) -> Path:
    """Write a row's subtitles; the file appears whole or not at all.

    Args:
        row: of the output.
        folder: where subtitles are; created if it does not exist.
        format: "srt" or "vtt".
        anew: also where the file exists already.

    Returns:
        the file.
    """
    target = target_of(row, folder, format)
    if target.exists() and not anew:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    spare = target.with_name(f".{target.name}.new")
    spare.write_text(subtitles(row["segments"], format), encoding="utf-8")
    os.replace(spare, target)
    return target


def delete_subtitles(row: dict[str, Any], folder: Path) -> None:
    """Remove a row's subtitles, where there are any."""
    for format in FORMATS:
        target_of(row, folder, format).unlink(missing_ok=True)


def target_of(row: dict[str, Any], folder: Path, format: str) -> Path:
    """Name the file of a row's subtitles: the video's name, and a mark that no other one has.

    An id that was given in a list may be anything, even a path, or begin like others.
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(row["path"]).stem)[:80] or "video"
    id = row["id"]
    mark = id if re.fullmatch(r"[0-9a-f]{16}", id) else sha256(id.encode()).hexdigest()
    return folder / f"{stem}.{mark[:8]}.{format}"


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
