"""One frame, from whatever a caller passes to a contiguous uint8 RGB array [H, W, 3]."""

from typing import Any

import numpy as np

from mmkv.video.errors import VideoError
from mmkv.video.pixels import as_rgb
from mmkv.video.source import Frame

MAX_SIDE = 16384
MAX_PIXELS = 100_000_000


def as_frame(value: Any, name: str = "frame") -> Frame:
    """Convert a frame to contiguous uint8 RGB `[H, W, 3]`.

    Args:
        value: a uint8 array or torch tensor `[H, W, 3]`, or a PIL image of any mode, which is
            turned as its Exif orientation says.
        name: what to call it in the error.

    Raises:
        VideoError: it has another shape or dtype, is empty, or is absurdly large.
    """
    if hasattr(value, "convert") and hasattr(value, "getbands"):  # a PIL image
        check_size(value.width, value.height, name)
        from PIL import ImageOps

        value = as_rgb(ImageOps.exif_transpose(value), name)
    array = to_numpy(value)
    if array is None or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise VideoError(
            f"{name} must be RGB uint8 [H, W, 3] or a PIL image; got {describe(value)}"
            f"{to_bytes(array)}"
        )
    check_size(array.shape[1], array.shape[0], name)
    return np.ascontiguousarray(array)


def to_numpy(value: Any) -> np.ndarray[Any, Any] | None:
    """Return the array behind a NumPy array or a torch tensor on any device; None for others."""
    if isinstance(value, np.ndarray):
        return value
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        tensor = value.detach().cpu()
        if tensor.is_floating_point():  # NumPy has no bfloat16
            tensor = tensor.float()
        array: np.ndarray[Any, Any] = tensor.numpy()
        return array
    return None


def describe(value: Any) -> str:
    """Describe a value by its shape and dtype, or by its type, for error messages."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{type(value).__name__} {value.dtype} {list(shape)}"


def to_bytes(array: np.ndarray[Any, Any] | None) -> str:
    """Say how frames of floats become what is allowed, to end an error with; "" for others."""
    if array is None or array.dtype.kind != "f" or not array.size:
        return ""
    low, high = float(array.min()), float(array.max())
    if low >= 0 and high <= 1:
        return "; convert floats from 0 to 1 with (frames * 255).round().astype('uint8')"
    if low >= 0 and high <= 255:
        return "; convert floats from 0 to 255 with frames.round().astype('uint8')"
    return (
        f"; its values go from {low:g} to {high:g}: undo their normalisation, then convert them "
        "with (frames * 255).round().astype('uint8')"
    )


def check_size(width: int, height: int, name: str) -> None:
    """Refuse a frame that would take gigabytes, before any memory is allocated.

    Raises:
        VideoError: a side is 0 or above 16,384 pixels, or the frame is above 100 million pixels.
    """
    if width <= 0 or height <= 0:
        raise VideoError(f"{name}: a frame of {width}×{height} pixels has nothing to show")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise VideoError(
            f"{name}: a frame of {width}×{height} pixels is too large; at most {MAX_SIDE} pixels "
            f"a side and {MAX_PIXELS // 10**6} million in all: scale the video down first"
        )


def fit(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Shrink the size `(width, height)` in proportion, to at most `max_side` pixels a side."""
    longest = max(width, height)
    if max_side is None or longest <= max_side:
        return width, height
    scale = max_side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(frame: Frame, max_side: int | None) -> Frame:
    """Scale a frame `[H, W, 3]` down in proportion, to at most `max_side` pixels a side."""
    height, width = frame.shape[:2]
    size = fit(width, height, max_side)
    if size == (width, height):
        return frame
    import cv2

    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
