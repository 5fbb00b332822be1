"""A visitor's camera: pictures that the page sends, the newest one first."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from mmkv.video import Frame, FrameSource, VideoError
from mmkv.video.frames import as_frame, check_size, shrink
from mmkv.video.mailbox import Mailbox

MAX_BYTES = 4_000_000
MAX_SIDE = 1280
MAX_PIXELS = 16_000_000  # of a picture as it is sent
FORMATS = ("JPEG", "PNG", "WEBP")


class CameraSource(FrameSource):
    """Frames as `put` brings them; one that arrives while another waits replaces it (`dropped`).

    Args:
        fps: frames per second beyond which pictures are refused.
        limit: seconds after which the source ends.
        clock: seconds that only rise.

    Attributes:
        cut: whether the source ended at `limit`.
        newest: seconds of the newest frame; None before the first.
    """

    live = True

    def __init__(
        self, fps: float, limit: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = "camera"
        self.cut = False
        self._gap = 1 / fps
        self._limit = limit
        self._clock = clock
        self._mailbox = Mailbox()
        self._lock = threading.Lock()
        self._began: float | None = None
        self._tried: float | None = None
        self.newest: float | None = None

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        while (item := self._mailbox.get()) is not None:
            yield item

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """Pictures that arrived faster than the model could look at them."""
        return self._mailbox.dropped

    def put(self, picture: bytes) -> bool:
        """Take a picture.

        It is decoded only if its turn has come: what arrives too soon costs nothing, nor does a
        second one beside it, and a damaged one takes its turn too.

        Args:
            picture: a JPEG, PNG or WebP file.

        Returns:
            whether it was taken; it is not where it arrives too soon, or after the end.

        Raises:
            VideoError: it is none of these, damaged, or too large.
        """
        now = self._clock()
        with self._lock:
            if self.closed or self.cut:
                return False
            if self._tried is not None and now < self._tried + 0.7 * self._gap:
                return False
            seconds = now - (now if self._began is None else self._began)
            if seconds > self._limit:
                self.cut = True
                self._mailbox.end()
                return False
            self._tried = now
        frame = decode(picture)
        with self._lock:
            if self._began is None:
                self._began = now
            seconds = now - self._began
            if self.closed or (self.newest is not None and seconds <= self.newest):
                return False
            self.newest = seconds
            self._mailbox.put(seconds, frame)
        return True

    def close(self) -> None:
        """Stop, and release the reader."""
        super().close()
        self._mailbox.close()


def decode(picture: bytes) -> Frame:
    """Decode a picture to uint8 RGB `[H, W, 3]`, at most 1280 pixels a side.

    Raises:
        VideoError: it is not a JPEG, PNG or WebP picture, or is damaged or too large.
    """
    from PIL import Image

    if len(picture) > MAX_BYTES:
        raise VideoError(f"a picture of {len(picture)} bytes is too large; at most {MAX_BYTES}")
    try:
        with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
            check_size(image.width, image.height, "the camera's picture")
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(
                    f"a picture of {image.width}×{image.height} pixels is too large; at most "
                    f"{MAX_PIXELS // 10**6} million"
                )
            return np.ascontiguousarray(shrink(as_frame(image), MAX_SIDE))
    except VideoError:
        raise
    except Exception:  # Pillow raises many kinds; what is in the file is not for the page
        raise VideoError("the camera's picture is damaged or not a picture at all") from None


def jpeg(frame: Frame) -> bytes:
    """Encode a frame as JPEG, at most 640 pixels a side."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(shrink(frame, 640)).save(data, "JPEG", quality=80)
    return data.getvalue()
