"""A folder of images as a video."""

import re
from collections.abc import Iterator
from pathlib import Path

from mmkv.video.errors import VideoError
from mmkv.video.frames import shrink
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.sampling import sample
from mmkv.video.source import Frame
from mmkv.video.still import read_still
from mmkv.video.suffixes import IMAGES, passed_over


class FolderSource(QueuedSource):
    """The images of a folder in natural order (2 before 10), `rate` of them per second.

    An image that cannot be read is left out with a warning; its place in time stays empty. Of an
    animation or a file of several pages the first picture is shown, with a warning.

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
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
        paths = sorted(
            (path for path in inside if path.suffix.lower() in IMAGES),
            key=lambda path: natural(path.name),
        )
        others = passed_over(set(inside).difference(paths), "images")
        if not paths:
            raise VideoError(
                f"{folder}: there are no images in this folder (looked for {', '.join(IMAGES)}"
                + (f"; {others}" if others else "")
                + "); give a video file or a folder of images"
            )
        super().__init__(str(folder), len(paths) / rate)
        warnings = self.warnings
        if others:
            warnings.append(f"{folder}: {others}")

        def produce() -> Iterator[tuple[float, Frame]]:
            frames = 0
            chosen = sample(((index / rate, path) for index, path in enumerate(paths)), fps)
            for seconds, path in chosen:
                try:
                    frame, count = read_still(path)
                except Exception as error:  # Pillow raises anything where a file is damaged
                    warnings.append(f"{path}: left out, it cannot be read as an image ({error})")
                    continue
                if count > 1:
                    warnings.append(f"{path}: only the first of its {count} pictures is shown")
                frames += 1
                yield seconds, shrink(frame, max_side)
            if not frames:
                raise VideoError(f"{folder}: none of its {len(paths)} images can be read")

        self._start(ReadAhead(produce, self.name))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Make a sort key under which `frame2` comes before `frame10`."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
