"""Pixels of every kind as 8-bit RGB.

Transparent parts are white. 16-bit levels become 8-bit levels of the same brightness. Pixels that
are floats go from 0 (black) to 1 (white). Embedded colour profiles are not applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmkv.video.errors import VideoError
from mmkv.video.source import Frame

if TYPE_CHECKING:
    from PIL.Image import Image

_BEYOND = 0.01  # by how much a float may miss 0..1, as resizing makes them


def as_rgb(image: Image, name: str, format: str | None = None) -> Frame:
    """Convert an image of any mode that has an agreed brightness.

    Args:
        image: as Pillow has it.
        name: what to call it in the error.
        format: that of the file it comes from, as Pillow calls it; None: the image's own.

    Returns:
        contiguous uint8 RGB `[H, W, 3]`.

    Raises:
        VideoError: its pixels are floats outside 0..1, or 32-bit integers.
    """
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image).astype(np.uint32) / 257)
    if image.mode == "I":
        # a netpbm image's levels are spread to 16 bits, and old Pillows open a 16-bit PNG so
        if (format or image.format) not in ("PPM", "PNG"):
            raise VideoError(
                f"{name}: its pixels are 32-bit integers, whose white is not agreed on; "
                "convert it to 8 or 16 bits"
            )
        return _grey(np.asarray(image).clip(0, 65535) / 257)
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= -_BEYOND and high <= 1 + _BEYOND):  # false for NaN too
            raise VideoError(
                f"{name}: its pixels are floats from {low:g} to {high:g}; "
                "they must go from 0 (black) to 1 (white)"
            )
        return _grey(values.clip(0, 1) * 255)
    palette = getattr(image.palette, "mode", "") if image.mode == "P" else ""
    if image.mode.endswith(("A", "a")) or palette == "RGBA" or "transparency" in image.info:
        return over_white(np.asarray(image.convert("RGBA")), empty=False)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _grey(levels: np.ndarray[Any, Any]) -> Frame:
    """Levels from 0 to 255, not whole, as a picture."""
    grey = (levels + 0.5).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def over_white(picture: NDArray[Any], *, empty: bool) -> Frame:
    """Lay a picture with an alpha channel over white, as on a page.

    Args:
        picture: uint8 RGBA `[H, W, 4]`.
        empty: show a picture without one visible pixel as if it had no alpha, since many
            recorders leave the channel empty.

    Returns:
        uint8 RGB `[H, W, 3]`.
    """
    alpha = picture[..., 3:]
    least = alpha.min()
    if least == 255 or (empty and least == 0 and not alpha.any()):
        return np.ascontiguousarray(picture[..., :3])
    rgb, share = picture[..., :3].astype(np.uint16), alpha.astype(np.uint16)
    return ((rgb * share + (255 - share) * 255 + 127) // 255).astype(np.uint8)
