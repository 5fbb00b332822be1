"""What files of a folder are by their names, all in lower case."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2"),
)
VIDEOS = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gxf", ".m1v", ".m2ts"),
    *(".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut"),
    *(".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m"),
    *(".264", ".265", ".av1", ".h264", ".h265", ".hevc", ".ivf", ".mjpeg", ".mjpg", ".obu"),
)
MAYBE_ANIMATED = (".gif", ".apng", ".png", ".webp", ".avif")
# pictures that nothing here reads
OTHER_IMAGES = (
    *(".heic", ".heif", ".hif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".cr3"),
    *(".nef", ".arw", ".raf", ".orf", ".rw2"),
)


def passed_over(paths: Iterable[Path], what: str) -> str | None:
    """Say which pictures and videos of a folder were passed over.

    Args:
        paths: those that were not taken, of any kind.
        what: what they would have to be, in the plural.

    Returns:
        a clause with their number by suffix; None where there are none.
    """
    known = {*IMAGES, *VIDEOS, *OTHER_IMAGES}
    kinds = Counter(suffix for path in paths if (suffix := path.suffix.lower()) in known)
    if not kinds:
        return None
    counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
    return f"passed over, since they are no {what} that mmkv reads: {counts}"
