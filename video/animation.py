"""Animated WebP, PNG, GIF and AVIF files: FFmpeg cannot read them or times them otherwise.

Pictures are decoded one by one. A picture shown for 10 ms or less is shown for 100 ms, as in
browsers; how often an animation is repeated does not matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from mmkv.video.errors import VideoError
from mmkv.video.frames import check_size, shrink
from mmkv.video.pixels import as_rgb
from mmkv.video.queued import QueuedSource
from mmkv.video.readahead import ReadAhead
from mmkv.video.shown import ShownSampler, shown
from mmkv.video.source import Frame
from mmkv.video.still import canvas

_SHORTEST, _INSTEAD = 10.0, 100.0  # milliseconds, in which sums of times are exact


class Animation(QueuedSource):
    """An animated WebP, PNG, GIF or AVIF file; what cannot be decoded ends it with a warning.

    Args:
        path: the file, of which `is_animation` is true.
        name: what to call it in messages.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.

    Raises:
        VideoError: on opening, its frames are absurdly large; while reading, not a single one can
            be decoded.
    """

    def __init__(
        self, path: Path, name: str, *, fps: float | None, max_side: int | None = None
    ) -> None:
        size = canvas(path) or _png_size(path)
        if size is not None:
            check_size(*size, name)
        super().__init__(name)
        warnings, closing = self.warnings, self._closing

        def produce() -> Iterator[tuple[float, Frame]]:
            end = 0.0

            def timed() -> Iterator[tuple[float, Frame]]:
                nonlocal end
                found = 0
                try:
                    for delay, frame in _pictures(path, name):
                        if closing.is_set():
                            return
                        found += 1
                        yield end / 1000, shrink(frame, max_side)
                        end += delay
                except Exception as error:  # Pillow raises anything where a file is damaged
                    if not found:
                        raise VideoError(
                            f"{name}: not a single frame could be decoded ({error})"
                        ) from None
                    warnings.append(f"{name}: reading stopped after {found} frames: {error}")

            for one in shown(timed(), ShownSampler(fps), lambda: end / 1000):
                for seconds in one.times:
                    yield seconds, one.item

        self._start(ReadAhead(produce, name))


def is_animation(path: Path) -> bool:
    """Whether a file is an animated picture, by what is in it and not by its name.

    An animation that this Pillow was built without is none.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"GIF8" or (head[4:8] == b"ftyp" and b"avis" in head):
            return _moves(path)
        if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
            return len(head) > 20 and bool(head[20] & 2)
        if head[:8] != b"\x89PNG\r\n\x1a\n":
            return False
        file.seek(8)
        while len(start := file.read(8)) == 8:  # chunks, up to the first with pixels
            length, kind = struct.unpack(">I4s", start)
            if kind in (b"acTL", b"IDAT", b"IEND"):
                return bool(kind == b"acTL")
            file.seek(length + 4, 1)
    return False


def _moves(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # damaged, or of a kind that this Pillow was built without
        return False


def _png_size(path: Path) -> tuple[int, int] | None:
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        return None
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def _pictures(path: Path, name: str) -> Iterator[tuple[float, Frame]]:
    """The pictures, each with the milliseconds that it is shown."""
    from PIL import Image

    with Image.open(path) as image:
        check_size(image.width, image.height, name)
        # a PNG's picture for programs that know no animation is not part of it
        first = 1 if getattr(image, "default_image", False) else 0
        for number in range(first, getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            delay = float(image.info.get("duration") or 0)
            yield (delay if delay > _SHORTEST else _INSTEAD), as_rgb(image, name)
