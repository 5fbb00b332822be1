"""What `mmkv caption` says: how far it is, what it did, and what failed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mmkv.config.units import clock, counted, took

if TYPE_CHECKING:
    from mmkv.demos.captioning.listing import Video
    from mmkv.demos.captioning.progress import Tally

_LINE_SECONDS = 60.0  # between lines where stderr is not a terminal


def ended(tally: Tally, path: Path) -> str:
    """Say what a run did, in one line.

    Args:
        tally: its counts.
        path: the file of its rows.
    """
    parts = [f"{counted(tally.done, 'video')} captioned"]
    if tally.before:
        parts.append(f"{tally.before} were there already")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    text = f"{path}: {', '.join(parts)}"
    if tally.done:
        text += f"; {took(tally.elapsed)}, {tally.per_hour:.0f} videos/h"
        text += f", {tally.seconds_of_video / tally.elapsed:.1f} s of video per second"
        started = tally.startup
        text += " with start-up" if started is None else f", after {took(started)} of start-up"
    return text


def failures(tally: Tally, path: Path) -> str:
    """Say how many videos failed, and why the first of them did, in one line.

    Args:
        tally: the run's counts.
        path: the file of failures.
    """
    more = f", and {tally.failed - 1} more" if tally.failed > 1 else ""
    return (
        f"{counted(tally.failed, 'video')} failed: {tally.first_failure.rstrip('.')}{more}; "
        f"{path} says why"
    )


class Line:
    """The one line of progress: rewritten on a terminal, else written now and then.

    Args:
        show: False writes nothing.
    """

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic() if not self._terminal else 0.0

    def __call__(
        self, tally: Tally, video: Video | None, seconds: float, duration: float | None
    ) -> None:
        now = time.monotonic()
        gap = 0.2 if self._terminal else _LINE_SECONDS
        if not self._show or now - self._last < gap:
            return
        self._last = now
        name = ""
        if video is not None:
            until = "" if duration is None else f" of {clock(duration)}"
            name = f"{Path(video.shown).name} {clock(seconds)}{until}"
        text = tally.line(name)
        if self._terminal:
            import shutil

            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{text[:width]}")
        else:
            self._write(f"{text}\n")

    def clear(self) -> None:
        """Erase the line from the terminal."""
        if self._show and self._terminal:
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # nobody reads it any more, which is no reason to stop
            self._show = False
