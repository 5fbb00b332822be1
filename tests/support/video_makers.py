"""Small videos of every kind, whose frames carry their number and a mark at the top left."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import number_of, numbered, silence

COUNT = 28  # frames of a video; at 29.97 a second it ends before 1.001 s, a hair from 1 s
Picture = np.ndarray[Any, Any]

# The track's matrix (a, b, c, d): x' = a x + c y and y' = b x + d y, and what undoes it.
TURNS: dict[tuple[int, int, int, int], Callable[[Picture], Picture]] = {
    (1, 0, 0, 1): lambda picture: picture,
    (-1, 0, 0, 1): np.fliplr,
    (-1, 0, 0, -1): lambda picture: np.rot90(picture, 2),
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda picture: picture.swapaxes(0, 1),
    (0, 1, -1, 0): lambda picture: np.rot90(picture, 1),
    (0, -1, -1, 0): lambda picture: np.rot90(picture, 2).swapaxes(0, 1),
    (0, -1, 1, 0): lambda picture: np.rot90(picture, -1),
}
UPRIGHT = (1, 0, 0, 1)


def marked(index: int, width: int, height: int) -> Picture:
    """Frame `index` [H, W, 3]: its number as bars, a red mark at the top left."""
    picture = numbered(index, width, height)
    picture[: height // 4, : width // 5] = 220, 20, 20
    return picture


def number_of_marked(frame: Picture) -> int:
    """The number of a frame [H, W, 3]; -1 if the mark is not at the top left alone."""
    height, width = frame.shape[:2]
    far = frame[1 : height // 8, 2 : width // 8], frame[1 : height // 8, -width // 8 : -2]
    low = frame[-height // 8 : -1, 2 : width // 8], frame[-height // 8 : -1, -width // 8 : -2]
    red = [float((part[..., 0] - part[..., 1:].mean(-1)).mean()) > 60 for part in (*far, *low)]
    return number_of(frame) if red == [True, False, False, False] else -1


def encode(
    path: Path,
    codec: str,
    *,
    rate: Fraction | int = 25,
    milliseconds: Sequence[int] | None = None,
    first: int = 0,
    b_frames: int = 0,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (80, 48),
    aspect: int = 1,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    sound: float = 0.0,
) -> None:
    """Write `COUNT` frames.

    Frame k is shown from (first + k) / rate on, or from `milliseconds[k]`; `sound` is that many
    seconds of silence from 0 on, and `aspect` a pixel's width over its height.
    """
    rate = Fraction(rate) if milliseconds is None else Fraction(1000)
    stamps = milliseconds or range(first, first + COUNT)
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.gop_size = 12
        if aspect != 1:
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        quick = {"preset": "ultrafast", "x265-params": "log-level=error"}
        stream.options = {
            **(quick if codec.startswith("libx26") else {}),
            **({"bf": str(b_frames)} if b_frames or codec == "libx264" else {}),
            **(options or {}),
        }
        silent: Any = container.add_stream("aac", rate=8000) if sound else None
        for index, when in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(marked(index, *size), format="rgb24")
            frame.pts, frame.time_base = when, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            container.mux(silence(silent, sound))


def encode_with_ffmpeg(path: Path, arguments: Sequence[str]) -> None:
    """Write the same frames at 25 a second with the ffmpeg program; skips where there is none."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not installed, and PyAV has no encoder for this")
    frames = b"".join(marked(index, 80, 48).tobytes() for index in range(COUNT))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "80x48", "-r", "25", "-i", "-"]
    options = ["-pix_fmt", "yuv420p", *arguments]
    command = ["ffmpeg", "-v", "error", "-y", *source, *options, str(path)]
    done = subprocess.run(command, input=frames, capture_output=True)
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot write it: {done.stderr.decode().strip()[:200]}")


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Set the matrix of an MP4's only track."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data)


def edit(path: Path, segments: Sequence[tuple[float, float]]) -> None:
    """Give an MP4's first track another edit list.

    Args:
        path: a file whose index (`moov`) is at its end.
        segments: seconds shown, and the time of the film at which that begins; -1: nothing.
    """
    data = bytearray(path.read_bytes())
    movie, track, edits = data.index(b"moov") - 4, data.index(b"trak") - 4, data.index(b"edts") - 4
    (movie_scale,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    (size,) = struct.unpack_from(">I", data, edits)
    entry = data.index(b"elst") + 12
    starts = [struct.unpack_from(">i", data, entry + 12 * k + 4)[0] for k in range(2)]
    zero = max(starts[: struct.unpack_from(">I", data, entry - 4)[0]])  # of the first frame
    entries = b"".join(
        struct.pack(
            ">IiI",
            round(length * movie_scale),
            -1 if start < 0 else zero + round(start * scale),
            0x10000,
        )
        for length, start in segments
    )
    body = struct.pack(">4sII", b"elst", 0, len(segments)) + entries
    atom = struct.pack(">I", len(body) + 4) + body
    new = struct.pack(">I4s", len(atom) + 8, b"edts") + atom
    data[edits : edits + size] = new
    for at in (movie, track):
        (length,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", data, at, length + len(new) - size)
    path.write_bytes(data)
