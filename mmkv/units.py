"""Sizes and durations as people write them."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SPANS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def parse_bytes(name: str, value: int | str) -> int:
    """Bytes from a number or a text such as "8GB" or "500 MB" (powers of ten).

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
    """Seconds from a number or a text such as "90s", "15min", "12h" or "7d".

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
