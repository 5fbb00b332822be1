"""Small real videos for the tests; every frame shows its own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BARS = 10


def numbered(index: int, width: int = 80, height: int = 48) -> np.ndarray[Any, Any]:
    """A frame [H, W, 3] whose vertical bars are the bits of `index`."""
    bits = (index >> np.arange(BARS)) & 1
    columns = np.arange(width) * BARS // width
    row = np.where(bits[columns], 230, 25).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def number_of(frame: np.ndarray[Any, Any]) -> int:
    """Which frame of `numbered` this is, after any amount of compression."""
    width = frame.shape[1]
    middles = (np.arange(BARS) * 2 + 1) * width // (2 * BARS)
    bits = frame[frame.shape[0] // 2, middles].mean(axis=1) > 128
    return int((bits * 2 ** np.arange(BARS)).sum())


def write_video(
    path: Path,
    milliseconds: Sequence[int],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (80, 48),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
    audio_seconds: float = 0.0,
    frames: Sequence[np.ndarray[Any, Any]] | None = None,
) -> Path:
    """A video whose frame i is `numbered(i)` shown from ``milliseconds[i]`` on."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=1000)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 12
        if codec.startswith("libx26"):
            stream.options = {"preset": "ultrafast", **(options or {})}
        else:
            stream.options = options or {}
        sound: Any = container.add_stream("aac", rate=8000) if audio_seconds else None
        for index, when in enumerate(milliseconds):
            image = frames[index] if frames is not None else numbered(index, *size)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = when, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            container.mux(silence(sound, audio_seconds))
    return path


def silence(stream: Any, seconds: float) -> list[Any]:
    """Packets of `seconds` of silence."""
    packets = []
    for start in range(0, int(seconds * 8000), 1024):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        packets += stream.encode(frame)
    return packets + stream.encode()


def steady(count: int, fps: float = 25.0) -> list[int]:
    """Times in milliseconds of `count` frames at a constant rate."""
    return [round(1000 * index / fps) for index in range(count)]
