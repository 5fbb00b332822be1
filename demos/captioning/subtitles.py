"""A row's segments as subtitles: SubRip and WebVTT.

Programs disagree on what these formats say: some read `{x}` as a style and drop it, some undo
`&lt;` and some do not, one takes a last line of digits for the next cue's number. So a caption is
written with characters that all of them show alike, and every cue lasts at least a millisecond.
"""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

FORMATS = ("srt", "vtt")
# what begins a tag, a style or an escape somewhere, and what looks like it
_ALIKE = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")", "\\": "/"})
_STAMP = re.compile(r"(?<=:)(\d{1,2})[.,](?=\d)")


def subtitles(segments: Sequence[dict[str, Any]], format: str) -> str:
    """Write the text of a subtitle file.

    Args:
        segments: with start and end in seconds, and caption. One without a word is left out.
        format: "srt" or "vtt".
    """
    cues: list[str] = []
    for segment in sorted(segments, key=lambda one: one["start"]):
        text = cue_text(segment["caption"])
        if not text:
            continue
        mark = "," if format == "srt" else "."
        start = max(0, round(1000 * segment["start"]))
        end = max(start + 1, round(1000 * segment["end"]))
        span = f"{_clock(start, mark)} --> {_clock(end, mark)}"
        cues.append(f"{len(cues) + 1}\n{span}\n{text}\n")
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


def cue_text(caption: str) -> str:
    """Write a caption so that every program shows the same.

    Angle brackets become ‹ and ›, braces round brackets and backslashes slashes. Empty lines and
    control characters are dropped, spaces collapsed. Where `&` would begin an entity, a space
    follows it. A last line of digits is joined to the one before, and two times in one line are
    written with a middle dot.

    Returns:
        lines without an empty one among them; "" for a caption without a word.
    """
    lines = [" ".join(_plain(line).split()) for line in caption.splitlines()]
    lines = [_undated(line) for line in lines if line]
    while len(lines) > 1 and re.fullmatch(r"\d+", lines[-1]):
        lines[-2:] = [f"{lines[-2]} {lines[-1]}"]
    return "\n".join(lines)


def _plain(line: str) -> str:
    line = "".join(
        " " if c.isspace() else c
        for c in line
        if c.isspace() or (unicodedata.category(c) not in ("Cc", "Cs") and c != "\ufeff")
    )
    if html.unescape(line) != line:
        line = re.sub(r"&(?=[#\w])", "& ", line)
    return line.translate(_ALIKE)


def _undated(line: str) -> str:
    """A line with two times in it is a cue's first line to some."""
    return _STAMP.sub("\\1·", line) if len(_STAMP.findall(line)) > 1 else line


def _clock(milliseconds: int, mark: str) -> str:
    whole, thousandths = divmod(milliseconds, 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}{mark}{thousandths:03}"
