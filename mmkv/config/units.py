"""Sizes, durations and moments as people write and read them."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SPANS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def parse_bytes(name: str, value: int | str) -> int:
    """Return bytes from a number or a text such as "8GB" or "500 MB" (powers of ten).

    Raises:
        ValueError: it is neither, or not above zero.
    """
    problem = f"{name}={value!r} is not a size; use bytes or a text such as '500MB' or '8GB'"
    if isinstance(value, bool):
        raise ValueError(problem)
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)?\s*", value.upper())
        if match is None:
            raise ValueError(problem)
        value = int(float(match[1]) * _UNITS[match[2] or ""])
    if not isinstance(value, int) or value <= 0:
        raise ValueError(problem)
    return value


def parse_seconds(name: str, value: float | str) -> float:
    """Return seconds from a number or a text such as "90s", "15min", "12h" or "7d".

    Raises:
        ValueError: it is neither, or not above zero.
    """
    problem = f"{name}={value!r} is not a duration; use seconds or a text such as '12h' or '7d'"
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d)?\s*", value.lower())
        if match is None:
            raise ValueError(problem)
        value = float(match[1]) * _SPANS[match[2] or "s"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(problem)
    return float(value)


def clock(seconds: float) -> str:
    """Format a position in a video: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(n: float) -> str:
    """Format bytes, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" or n >= 10 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def took(seconds: float) -> str:
    """Format how long something took: 12 ms, 3.4 s, 2 min 5 s, 13 h 36 min."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 100 else f"{minutes} min {rest} s"


def counted(n: int, name: str) -> str:
    """Format a number of things: 1 video, 2 videos, 0 videos.

    Args:
        n: how many.
        name: of one; its plural ends in s.
    """
    return f"{n} {name}" if n == 1 else f"{n} {name}s"
