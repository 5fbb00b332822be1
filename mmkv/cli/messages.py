"""Lines that a command prints: columns of results, and what goes to stderr, never a password."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from mmkv.config.units import clock, size

_SHORT = 300.0  # seconds; an hour of a shorter video is no size to think in


def say(kind: str, text: str) -> None:
    """Write one line to stderr, without the password of any address in it."""
    typer.echo(f"{kind}: {' '.join(without_secrets(text).split())}", err=True)


def without_secrets(text: str) -> str:
    """Redact every network address in a text."""
    if "://" not in text:
        return text
    from mmkv.video.redact import redact

    return re.sub(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"]+", lambda found: redact(found[0]), text)


@contextmanager
def plain(*, quiet: bool) -> Iterator[None]:
    """Show warnings and log messages, our own and the libraries', as one line each.

    Args:
        quiet: show errors only.

    Yields:
        nothing; the earlier handlers are restored afterwards.
    """

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning) and not quiet:
            say("warning", str(message))

    ours = logging.getLogger("mmkv")
    levels = {
        ours: logging.ERROR if quiet else logging.WARNING,
        logging.getLogger("mmkv.session.feed"): logging.CRITICAL,  # `session.watch_live` says it
        logging.getLogger("huggingface_hub"): logging.ERROR,  # not each of its retries
        logging.getLogger("transformers"): logging.ERROR,  # again once imported, which resets it
    }
    before = {logger: logger.level for logger in levels}
    handlers, propagate = ours.handlers, ours.propagate
    ours.handlers, ours.propagate = [Lines()], False
    for logger, level in levels.items():
        logger.setLevel(level)
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        finally:
            ours.handlers, ours.propagate = handlers, propagate
            for logger, level in before.items():
                logger.setLevel(level)


class Lines(logging.Handler):
    """Log records as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        say(record.levelname.lower(), record.getMessage())


def moments(times: Sequence[float], gap: float) -> list[str]:
    """Format positions, best first, those at most `gap` seconds apart joined: 0:42-0:45, 0:03."""
    runs: list[list[float]] = []
    for time in sorted(times):
        if runs and time - runs[-1][-1] <= gap:
            runs[-1].append(time)
        else:
            runs.append([time])
    runs.sort(key=lambda run: min(map(times.index, run)))
    return [stretch(run[0], run[-1]) for run in runs]


def stretch(start: float, end: float) -> str:
    """Format a stretch of a video, in seconds: 0:42-0:45, 0:07.2-0:07.5; one frame is 0:03."""
    ends = [(clock(start), clock(end))]
    for digits in (1, 2):  # more than one frame within a second
        parts = [divmod(int(round(t * 10**digits, 6)), 10**digits) for t in (start, end)]
        first, last = (f"{clock(whole)}.{rest:0{digits}}" for whole, rest in parts)
        ends.append((first, last))
    return next((f"{first}-{last}" for first, last in ends if first != last), ends[0][0])


def growth(gb_per_hour: float | None, fps: float | None, seconds: float | None) -> str:
    """Format how fast an archive grows: by the hour, or by 1,000 frames for a short video.

    Args:
        gb_per_hour: 10^9 bytes per hour of video.
        fps: frames per second of video.
        seconds: of the video.

    Returns:
        the text; "" where nothing is known.
    """
    if not gb_per_hour:
        return ""
    if fps and seconds is not None and seconds < _SHORT:
        return f"{size(1000 * gb_per_hour * 1e9 / 3600 / fps)} per 1,000 frames"
    return f"{gb_per_hour:.3g} GB per hour of video"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Format two columns, the first padded."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)
