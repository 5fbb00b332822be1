"""Small pictures of frames, kept with their keys and values, to show where an answer is from."""

from __future__ import annotations

from io import BytesIO

from torch import Tensor

SIDE = "thumbnail"  # the name that a block keeps it under
_LONGEST, _QUALITY = 160, 70  # pixels, JPEG's own scale


def thumbnail(frame: Tensor) -> bytes:
    """Make a JPEG, its longer side at most 160 pixels, of a frame, uint8 RGB `[H, W, 3]`."""
    from PIL import Image

    picture = Image.fromarray(frame.cpu().numpy())
    picture.thumbnail((_LONGEST, _LONGEST))
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
