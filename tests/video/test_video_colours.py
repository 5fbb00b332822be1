"""Colours are those that a file declares: its matrix, its range, its transfer characteristic."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmkv.video import open_source
from mmkv.video.hdr import to_sdr

# by the code of ITU-T H.273: what red and blue add to luma
MATRICES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114),
            7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # fmt: skip


def planes_of(bits: int) -> list[np.ndarray[Any, Any]]:
    """Luma and chroma [48, 80] in which every colour stays inside RGB's range."""
    y, x = np.mgrid[:48, :80]
    return [(60 + 2 * x) << (bits - 8), (104 + y) << (bits - 8), (152 - y) << (bits - 8)]


def write(
    path: Path, pixels: str, matrix: int, full: int, transfer: int = 2, primaries: int = 2
) -> Path:
    """A lossless video of one frame, and what it declares about its colours."""
    frame = av.VideoFrame(80, 48, pixels)
    bits = 10 if "10" in pixels else 8
    for plane, values in zip(frame.planes, planes_of(bits), strict=False):
        kind = np.uint16 if bits > 8 else np.uint8
        rows = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
        step = 48 // plane.height, 80 // plane.width
        rows[:, : plane.width] = values[:: step[0], :: step[1]]
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 80, 48, pixels
        for facts in (stream.codec_context, frame):
            facts.colorspace, facts.color_range = matrix, full
            facts.color_trc, facts.color_primaries = transfer, primaries
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(path: Path) -> np.ndarray[Any, Any]:
    """The file's only frame."""
    with open_source(path, fps=None) as frames:
        ((_, frame),) = frames
        assert frames.warnings == []
    return frame.astype(int)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [0, 1, 2])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv444p10le"])
def test_matrix_and_range_are_as_declared(
    tmp_path: Path, pixels: str, full: int, matrix: int
) -> None:
    """BT.709, BT.601 twice, SMPTE 240M, BT.2020, and none declared (BT.601); three ranges."""
    red, blue = MATRICES[matrix]
    luma, cb, cr = (plane.astype(float) for plane in planes_of(8))
    luma, span = (luma / 255, 255) if full == 2 else ((luma - 16) / 219, 224)
    cb, cr = (cb - 128) / span, (cr - 128) / span
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    want = 255 * np.stack([r, g, b], axis=-1).clip(0, 1)
    got = shown(write(tmp_path / "a.mkv", pixels, matrix, full))
    assert np.abs(got - want).max() < 1.6


@pytest.mark.parametrize("matrix", [1, 2, 6, 9])
@pytest.mark.parametrize(
    ("pixels", "full"), [("yuv420p", 1), ("yuvj420p", 2), ("yuv422p", 2), ("gray", 1)]
)
def test_colours_are_the_ffmpeg_programs(
    tmp_path: Path, pixels: str, full: int, matrix: int
) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("the ffmpeg program is not installed")
    path = write(tmp_path / "a.mkv", pixels, matrix, full)
    raw = subprocess.run(
        [program, "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    theirs = np.frombuffer(raw, np.uint8).reshape(48, 80, 3).astype(int)
    assert np.abs(shown(path) - theirs).max() <= 2


def pq(light: float) -> float:
    """SMPTE ST 2084: the code in 0..1 of light in cd/m²."""
    y = (light / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def nits(code: float) -> float:
    """The inverse, by halving."""
    low, high = 0.0, 10000.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if pq(middle) < code else (low, middle)
    return low


def grey(light: float) -> float:
    """The sRGB code in 0..255 of a grey of so many cd/m², compressed as ITU-R BT.2390 says."""
    e, most = min(pq(light) / pq(1000), 1), pq(203) / pq(1000)
    knee = 1.5 * most - 0.5
    if e > knee:
        t = (e - knee) / (1 - knee)
        e = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee)
        e += (-2 * t**3 + 3 * t**2) * most
    linear = nits(e * pq(1000)) / 203
    return 255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("light", [0, 0.5, 5, 26, 60, 100, 203, 400, 700, 1000, 4000])
@pytest.mark.parametrize("kind", ["PQ", "HLG"])
def test_a_grey_of_high_range_is_that_grey_of_ordinary_range(light: float, kind: str) -> None:
    if kind == "HLG":  # ITU-R BT.2100: the scene's light, then its code
        scene = min(light / 1000, 1) ** (1 / 1.2)
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        code = (3 * scene) ** 0.5 if scene <= 1 / 12 else a * np.log(12 * scene - b) + c
    else:
        code = pq(light) if light else 0.0
    deep = np.full((2, 3, 3), round(code * 65535), np.uint16)
    got = to_sdr(deep, {"PQ": 16, "HLG": 18}[kind])
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got, grey(light) if light else 0, atol=1.5)
    eight = to_sdr((deep >> 8).astype(np.uint8), {"PQ": 16, "HLG": 18}[kind])
    np.testing.assert_allclose(eight, got, atol=8)


def test_colours_of_high_range_keep_their_hue() -> None:
    """BT.709's red, written with BT.2020's primaries, is red again; so are the other corners."""
    to_2020 = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    for channel in range(3):
        light = 80 * to_2020[:, channel]  # cd/m², below what is compressed
        deep = np.array([[[round(65535 * pq(value)) for value in light]]], np.uint16)
        want = np.zeros(3)
        want[channel] = grey(80)
        np.testing.assert_allclose(to_sdr(deep, 16, 9)[0, 0], want, atol=6)


@pytest.mark.parametrize("transfer", [16, 18])
def test_a_video_of_high_range_is_mapped(tmp_path: Path, transfer: int) -> None:
    """Shown as it is stored, it would be pale: the same file declared as ordinary is the proof."""
    plain = shown(write(tmp_path / "a.mkv", "yuv444p10le", 9, 1, 1, 9))
    mapped = shown(write(tmp_path / "b.mkv", "yuv444p10le", 9, 1, transfer, 9))
    want = to_sdr((plain * 257).clip(0, 65535).astype(np.uint16), transfer, 9).astype(int)
    assert np.abs(mapped - want).mean() < 2
    assert np.abs(mapped - plain).mean() > 10


def test_a_picture_of_ordinary_range_is_left_alone() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert to_sdr(image, 1) is image
