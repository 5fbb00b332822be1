"""How a stream remembers. Checked once, here."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from mmkv.retrieval.registry import check_score

log = logging.getLogger("mmkv")

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_WINDOW, _RECENT, _RETRIEVE = 64, 4, 32
_PROMPT_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Memory of one stream.

    Attributes:
        window_frames: frames in the sliding window that new frames attend to, at least 1.
            None: 64, or as many as fit the length the model was trained on.
        recent_frames: newest frames shown to every question, at most `window_frames`. None: 4.
        retrieve_frames: earlier frames a question retrieves in all; 0 answers from the window.
            None: 32, or as many as fit beside the recent ones.
        neighbours: frames that each retrieved one brings along on either side; they count among
            `retrieve_frames`. A question on what came after an event finds the event's frame.
        score: how frames are compared with a question: "mean-key" (ReKV), "cosine", "best-word"
            or "layer-sum"; see `mmkv.retrieval`.
        max_ram: bytes of host memory for frames that may be retrieved, or a text such as
            "8GB"; beyond it the oldest are forgotten. None: no limit.
        chunk_frames: frames encoded per forward pass, where that many are waiting.

    Raises:
        ValueError: a field is out of range; the message says which, the value, and what is allowed.
    """

    window_frames: int | None = None
    recent_frames: int | None = None
    retrieve_frames: int | None = None
    neighbours: int = 0
    score: str = "mean-key"
    max_ram: int | str | None = "8GB"
    chunk_frames: int = 8

    def __post_init__(self) -> None:
        _whole(self, "window_frames", 1, optional=True)
        _whole(self, "recent_frames", 0, optional=True)
        _whole(self, "retrieve_frames", 0, optional=True)
        _whole(self, "neighbours", 0)
        _whole(self, "chunk_frames", 1)
        check_score(self.score)
        window, recent = self.window_frames, self.recent_frames
        if window is not None and recent is not None and recent > window:
            raise ValueError(
                f"recent_frames={recent} is more than window_frames={window}; recent frames come "
                "from the window, so lower it or widen the window"
            )
        if self.max_ram is not None:
            object.__setattr__(self, "max_ram", parse_bytes("max_ram", self.max_ram))

    def sizes(self, context_tokens: int, tokens_per_frame: float) -> CacheSizes:
        """Every size decided, for a model trained on `context_tokens` with frames of so many."""
        fit = max(1, int((context_tokens - _PROMPT_TOKENS) / tokens_per_frame))
        recent = min(_RECENT, fit) if self.recent_frames is None else self.recent_frames
        window = self.window_frames
        if window is None:
            window = max(min(_WINDOW, fit), recent)
        if window > fit:
            log.warning(
                "window_frames=%d is more than the %d frames that fit the %d tokens this model "
                "was trained on; answers may suffer",
                window,
                fit,
                context_tokens,
            )
        recent = min(recent, window)
        retrieve = self.retrieve_frames
        if retrieve is None:
            retrieve = max(1, min(_RETRIEVE, fit - recent))
        return CacheSizes(
            window_frames=window,
            recent_frames=recent if retrieve else window,
            retrieve_frames=retrieve,
            neighbours=self.neighbours,
            score=self.score,
            chunk_frames=self.chunk_frames,
            max_ram=None if self.max_ram is None else int(self.max_ram),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSizes:
    """A `CacheConfig` with every default decided; the same names, `max_ram` in bytes.

    Where nothing is retrieved, the recent frames are the whole window.
    """

    window_frames: int
    recent_frames: int
    retrieve_frames: int
    neighbours: int
    score: str
    chunk_frames: int
    max_ram: int | None


def _whole(config: object, name: str, low: int, *, optional: bool = False) -> None:
    value = getattr(config, name)
    if value is None and optional:
        return
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
