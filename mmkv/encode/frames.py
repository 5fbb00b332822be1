"""Checks frames and times that a caller passes, and groups frames for encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mmkv.video.frames import to_bytes, to_numpy

MAX_SECONDS = 1e10  # three centuries; more must be in another unit


def as_frames(frames: np.ndarray | Tensor, channels: str) -> Tensor:
    """Return uint8 RGB `[N, H, W, 3]` from one frame or several.

    Raises:
        ValueError: the type, shape or channel order is another.
    """
    if channels not in ("rgb", "bgr"):
        raise ValueError(f"channels={channels!r} is not known; use 'rgb' or 'bgr' (OpenCV)")
    if not isinstance(frames, (np.ndarray, Tensor)):
        raise ValueError(f"frames are {type(frames).__name__}; pass a uint8 array or tensor")
    if isinstance(frames, np.ndarray):
        stack = as_tensor(frames) if frames.dtype == np.uint8 else torch.empty(0)
    else:
        stack = frames
    if stack.ndim == 3:
        stack = stack[None]
    if stack.ndim != 4 or stack.shape[-1] != 3 or stack.dtype != torch.uint8 or not stack.numel():
        raise ValueError(
            f"frames have shape {tuple(frames.shape)} and type {frames.dtype}; "
            f"pass uint8 [N, H, W, 3] or one frame [H, W, 3]{to_bytes(to_numpy(frames))}"
        )
    return stack.flip(-1) if channels == "bgr" else stack


def as_tensor(frames: np.ndarray | Tensor) -> Tensor:
    """Return a tensor, over the same memory unless that is reversed or read-only."""
    if isinstance(frames, np.ndarray):
        return torch.as_tensor(np.require(frames, requirements=["C", "W"]))
    return frames


def as_times(times: float | Sequence[float], count: int) -> list[float]:
    """Return one finite time in seconds per frame.

    Raises:
        ValueError: there are not `count` times, or one is not finite or too large.
    """
    try:
        listed = np.asarray(times, dtype=np.float64).reshape(-1).tolist()
    except (TypeError, ValueError):
        raise ValueError(f"times={times!r} are not numbers; pass seconds") from None
    if len(listed) != count:
        raise ValueError(f"{len(listed)} times for {count} frames; pass one time per frame")
    for t in listed:
        if not abs(t) <= MAX_SECONDS:
            raise ValueError(f"a frame's time is {t}; pass finite seconds, at most {MAX_SECONDS:g}")
    return listed


def check_rising(times: Iterable[float], last: float | None = None) -> None:
    """Raise ValueError for a time that is not after the one before it, at first `last`."""
    for t in times:
        if last is not None and t <= last:
            raise ValueError(f"a frame at {t} s came after one at {last} s; times must rise")
        last = t


def chunks(
    frames: Iterable[tuple[float, np.ndarray]], size: int
) -> Iterator[list[tuple[float, np.ndarray]]]:
    """Yield frames in lists of `size`; those read before a source failed come before its error."""
    chunk: list[tuple[float, np.ndarray]] = []
    try:
        for item in frames:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
