"""Pictures as players show them: pixels made square, the right way up, in an ordinary range.

What a file says about its pictures is a `Look`; `show` applies one to an array, whatever decoded
it, and `Screen` converts PyAV's frames. All of a player's corrections are made, in this order:
alpha over white, high dynamic range to ordinary (`mmkv.video.hdr`), pixels made square, turned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmkv.video.frames import MAX_PIXELS, MAX_SIDE, check_size, fit
from mmkv.video.hdr import is_hdr, to_sdr
from mmkv.video.orientation import orientation_of, upright
from mmkv.video.pixels import over_white
from mmkv.video.source import Frame

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

_LONGEST_PIXEL = 8  # times as long as wide; more is a damaged header


@dataclass(frozen=True, slots=True)
class Look:
    """How a stored picture is to be shown.

    Attributes:
        orientation: an Exif orientation, 1 to 8, as `orientation_of` finds it.
        aspect: a pixel's width over its height.
        transfer: transfer characteristic of ITU-T H.273; 16 is PQ, 18 is HLG.
        primaries: colour primaries of ITU-T H.273; 9 is BT.2020.
    """

    orientation: int = 1
    aspect: Fraction = Fraction(1)
    transfer: int = 2
    primaries: int = 2


def show(picture: NDArray[Any], look: Look, max_side: int | None = None) -> Frame:
    """Make a decoded picture what a player shows.

    Args:
        picture: RGB as stored, uint8 or uint16 `[H, W, 3]`, full range.
        look: what the file says about it.
        max_side: larger pictures are scaled down to this many pixels a side.

    Returns:
        contiguous uint8 RGB.
    """
    height, width = picture.shape[:2]
    size = shown_size(width, height, look.aspect, max_side)
    if size != (width, height):
        import cv2

        shrinks = size[0] < width or size[1] < height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, size, interpolation=how))
    return upright(to_sdr(picture, look.transfer, look.primaries), look.orientation)


def shown_size(
    width: int, height: int, aspect: Fraction = Fraction(1), max_side: int | None = None
) -> tuple[int, int]:
    """Say how large a picture is once its pixels are square, before it is turned.

    Args:
        width: pixels stored.
        height: the same.
        aspect: a pixel's width over its height.
        max_side: the most pixels a side; None for any number.

    Returns:
        width and height. One is as stored and the other larger, unless that exceeds what a frame
        may have (then it is the other way round) or `max_side`.
    """
    ratio = float(aspect)
    sizes = [
        (round(width * max(ratio, 1)), round(height * max(1 / ratio, 1))),
        (max(1, round(width * min(ratio, 1))), max(1, round(height * min(1 / ratio, 1)))),
    ]
    fits = max(sizes[0]) <= MAX_SIDE and sizes[0][0] * sizes[0][1] <= MAX_PIXELS
    return fit(*sizes[0 if fits else 1], max_side)


class Screen:
    """Shows one stream's frames, decoded by PyAV.

    Args:
        stream: the stream, not decoded yet.
        name: what to call it in messages.
        max_side: larger frames are scaled down to this many pixels a side.
        warnings: gets a sentence where something cannot be shown as it is meant to be; None: it
            is logged, as for live sources.
    """

    def __init__(
        self,
        stream: VideoStream,
        name: str,
        max_side: int | None = None,
        warnings: list[str] | None = None,
    ) -> None:
        self._stream = stream
        self._name = name
        self._max_side = max_side
        self._warnings = warnings
        self._noted: set[str] = set()
        # the container's word comes before the codec's, except where the codec's changes midway
        self._declared = stream.sample_aspect_ratio
        self._coded = stream.codec_context.sample_aspect_ratio

    def __call__(self, frame: VideoFrame) -> Frame:
        """Convert a frame to RGB as it is shown.

        Args:
            frame: as PyAV decodes it.

        Returns:
            contiguous uint8 RGB.

        Raises:
            VideoError: it is absurdly large.
        """
        return to_rgb(frame, self._name, self._max_side, self.look(frame))

    def look(self, frame: VideoFrame) -> Look:
        """Say how a frame of the stream is to be shown."""
        return Look(
            self._orientation(frame), self._aspect(), frame.color_trc, frame.color_primaries
        )

    def _aspect(self) -> Fraction:
        coded = self._stream.codec_context.sample_aspect_ratio
        ratio = coded if coded and coded != self._coded else self._declared or coded
        if not ratio or ratio <= 0:
            return Fraction(1)
        if not Fraction(1, _LONGEST_PIXEL) <= ratio <= _LONGEST_PIXEL:
            self._note(
                f"its pixels are said to be {ratio.numerator}:{ratio.denominator} wide to high, "
                "which cannot be; they are shown square"
            )
            return Fraction(1)
        return ratio

    def _orientation(self, frame: VideoFrame) -> int:
        matrix = display_matrix(frame)
        if matrix is None:
            return 1
        orientation, exact = orientation_of(matrix)
        if not exact:
            self._note(
                "it is to be shown at an angle that is no right angle; "
                "it is shown at the nearest one"
            )
        return orientation

    def _note(self, text: str) -> None:
        if text in self._noted:
            return
        self._noted.add(text)
        if self._warnings is None:
            logging.getLogger(__name__).warning("%s: %s", self._name, text)
        else:
            self._warnings.append(f"{self._name}: {text}")


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """Return a frame's display matrix, nine numbers row by row; None where it has none."""
    from av.sidedata import sidedata

    # not `frame.side_data`, which the frame keeps and which keeps the frame: such frames would
    # pile up until the next garbage collection
    side: Any = sidedata.SideDataContainer  # PyAV's types know no arguments of it
    try:
        data = side(frame).get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no name for another of the frame's side data
        turn = np.radians(frame.rotation)
        c, s = round(np.cos(turn) * 65536), round(np.sin(turn) * 65536)
        return (c, -s, 0, s, c, 0, 0, 0, 1 << 30)
    if data is None or data.buffer_size < 36:
        return None
    return tuple(int(value) for value in np.frombuffer(bytes(data), dtype=np.int32, count=9))


def to_rgb(
    frame: VideoFrame, name: str, max_side: int | None = None, look: Look | None = None
) -> Frame:
    """Convert a decoded frame to RGB as it is shown.

    Args:
        frame: as PyAV decodes it.
        name: what to call it in the error.
        max_side: larger frames are scaled down to this many pixels a side.
        look: how it is to be shown; None: as stored.

    Returns:
        contiguous uint8 RGB.

    Raises:
        VideoError: it is absurdly large.
    """
    look = look or Look()
    check_size(frame.width, frame.height, name)
    width, height = shown_size(frame.width, frame.height, look.aspect, max_side)
    clear = frame.format.name == "pal8" or any(c.is_alpha for c in frame.format.components)
    deep = is_hdr(look.transfer) and not clear
    form = "rgb48le" if deep else "rgba" if clear else "rgb24"
    # PyAV's scaler is told the frame's own matrix and range
    rgb: NDArray[Any] = frame.reformat(
        width=width, height=height, format=form, threads=1
    ).to_ndarray()
    if clear:
        rgb = over_white(rgb, empty=True)
    return upright(to_sdr(rgb, look.transfer, look.primaries), look.orientation)
