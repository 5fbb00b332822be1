"""A folder of images as a video."""

import re
from collections.abc import Iterator
from pathlib import Path

from mmkv.video.errors import VideoError
from mmkv.video.frames import as_frame, check_size, shrink
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.sampling import sample
from mmkv.video.source import Frame

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif")


class FolderSource(QueuedSource):
    """The images of a folder in natural order (2 before 10), `rate` of them per second.

    An image that cannot be read is left out with a warning; its place in time stays empty.

    Args:
        folder: where the images are.
        fps: frames per second to choose; None for all.
        rate: images per second.
        max_side: larger images are scaled down to this many pixels a side.

    Raises:
        VideoError: there is no image in the folder, or (while reading) none of them can be read.
    """

    def __init__(
        self, folder: Path, *, fps: float | None, rate: float, max_side: int | None = None
    ) -> None:
        paths = sorted(
            (
                path
                for path in folder.iterdir()
                if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
            ),
            key=lambda path: natural(path.name),
        )
        if not paths:
            raise VideoError(
                f"{folder}: there are no images in this folder "
                f"(looked for {', '.join(SUFFIXES)}); give a video file or a folder of images"
            )
        super().__init__(str(folder), len(paths) / rate)
        warnings = self.warnings

        def produce() -> Iterator[tuple[float, Frame]]:
            from PIL import Image

            frames = 0
            chosen = sample(((index / rate, path) for index, path in enumerate(paths)), fps)
            for seconds, path in chosen:
                try:
                    frame = _read(path)
                except (OSError, VideoError, Image.DecompressionBombError) as error:
                    warnings.append(f"{path}: left out, it cannot be read as an image ({error})")
                    continue
                frames += 1
                yield seconds, shrink(frame, max_side)
            if not frames:
                raise VideoError(f"{folder}: none of its {len(paths)} images can be read")

        self._start(ReadAhead(produce, self.name))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Make a sort key under which `frame2` comes before `frame10`."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _read(path: Path) -> Frame:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        # before any pixel is decoded
        check_size(image.width, image.height, str(path))
        return as_frame(ImageOps.exif_transpose(image), str(path))
