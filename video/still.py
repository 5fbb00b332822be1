"""Image files, opened with limits."""

from pathlib import Path

from mmkv.video.frames import check_size
from mmkv.video.pixels import as_rgb
from mmkv.video.source import Frame


def read_still(path: Path) -> tuple[Frame, int]:
    """Read an image file's first picture, the right way up.

    Args:
        path: the file.

    Returns:
        uint8 RGB `[H, W, 3]`, and how many pictures the file shows one after the other.

    Raises:
        VideoError: it is absurdly large, or its pixels have no brightness that is agreed on.
        Exception: whatever Pillow raises where the file is damaged.
    """
    from PIL import Image, ImageOps

    size = canvas(path)
    if size is not None:  # Pillow opens a decoder for the whole canvas at once
        check_size(*size, str(path))
    with Image.open(path) as image:
        check_size(image.width, image.height, str(path))  # before any pixel is decoded
        # the second picture of a phone's JPEG is a depth map or a smaller copy
        count = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
        return as_rgb(ImageOps.exif_transpose(image), str(path), image.format), count


def canvas(path: Path) -> tuple[int, int] | None:
    """Return width and height that a WebP file's header declares; None for other files."""
    with path.open("rb") as file:
        head = file.read(30)
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X":
        return None
    return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
