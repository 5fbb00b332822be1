"""How a stream remembers. Checked once, here."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Memory of one stream.

    Attributes:
        window_frames: frames in the sliding window that new frames attend to, at least 1.
        recent_frames: newest frames shown to every question, at most `window_frames`.
        retrieve_frames: earlier frames a question retrieves in all; 0 answers from the window.
        max_ram: bytes of host memory for frames that may be retrieved, or a text such as
            "8GB"; beyond it the oldest are forgotten. None: no limit.
        chunk_frames: frames encoded per forward pass, where that many are waiting.

    Raises:
        ValueError: a field is out of range; the message says which, the value, and what is allowed.
    """

    window_frames: int = 64
    recent_frames: int = 4
    retrieve_frames: int = 32
    max_ram: int | str | None = "8GB"
    chunk_frames: int = 8

    def __post_init__(self) -> None:
        _whole(self, "window_frames", 1)
        _whole(self, "recent_frames", 0)
        _whole(self, "retrieve_frames", 0)
        _whole(self, "chunk_frames", 1)
        if self.recent_frames > self.window_frames:
            raise ValueError(
                f"recent_frames={self.recent_frames} is more than window_frames="
                f"{self.window_frames}; recent frames come from the window, so lower it or widen "
                "the window"
            )
        if self.recent_frames == 0 and self.retrieve_frames == 0:
            # the window itself is then what a question sees; it needs nothing more
            object.__setattr__(self, "recent_frames", self.window_frames)
        if self.max_ram is not None:
            object.__setattr__(self, "max_ram", parse_bytes("max_ram", self.max_ram))

    @property
    def ram_limit(self) -> int | None:
        """`max_ram` in bytes."""
        return self.max_ram if self.max_ram is None else int(self.max_ram)

    def to_dict(self) -> dict[str, Any]:
        """Field names and values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _whole(config: object, name: str, low: int) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}={value!r} is not allowed; use a whole number of {low} or more")


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
