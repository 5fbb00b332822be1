"""Checks frames and times that a caller passes, and groups frames for encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

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


def checked(item: Any) -> tuple[float, np.ndarray]:
    """Return what a source gave, a time and a frame uint8 `[H, W, 3]`.

    Raises:
        ValueError: it is something else.
    """
    try:
        seconds, frame = item
    except (TypeError, ValueError):
        raise ValueError(
            f"the source gave {type(item).__name__}; it must give pairs of seconds and a frame"
        ) from None
    (seconds,) = as_times(seconds, 1)
    dtype, shape = getattr(frame, "dtype", None), tuple(getattr(frame, "shape", ()))
    if dtype not in (np.uint8, torch.uint8) or len(shape) != 3 or shape[2] != 3 or not all(shape):
        held = f"{dtype} {list(shape)}" if shape else type(frame).__name__
        raise ValueError(
            f"the source's frame at {seconds:.3f} s is {held}; it must be RGB uint8 [H, W, 3]"
        )
    return seconds, frame


def chunks(
    frames: Iterable[tuple[float, np.ndarray]], size: int
) -> Iterator[list[tuple[float, np.ndarray]]]:
    """Yield frames in lists of `size`; those read before a source failed come before its error.

    Raises:
        ValueError: the source gave something that is no time and frame.
    """
    chunk: list[tuple[float, np.ndarray]] = []
    try:
        for item in frames:
            chunk.append(checked(item))
            if len(chunk) == size:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
