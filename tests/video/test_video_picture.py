"""A video's pictures are what players show: upright, unmirrored, with square pixels."""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from video_files import write_video

from mmkv.video import open_source
from mmkv.video.orientation import orientation_of
from mmkv.video.picture import Look, Screen, display_matrix, show, shown_size

# where a viewer finds the corners stored as top left, top right, bottom left, bottom right
ORIENTATIONS = {
    1: ((1, 0, 0, 1), "0123"),
    2: ((-1, 0, 0, 1), "1032"),  # hflip
    3: ((-1, 0, 0, -1), "3210"),
    4: ((1, 0, 0, -1), "2301"),  # vflip
    5: ((0, 1, 1, 0), "0213"),  # transpose
    6: ((0, 1, -1, 0), "2031"),  # turned clockwise
    7: ((0, -1, -1, 0), "3120"),
    8: ((0, -1, 1, 0), "1302"),
}
CORNERS = np.array([(220, 40, 40), (40, 220, 40), (40, 40, 220), (220, 220, 40)], np.uint8)


def marked(width: int = 80, height: int = 48) -> np.ndarray[Any, Any]:
    """A picture whose corners have colours of their own."""
    image = np.full((height, width, 3), 90, np.uint8)
    for index, colour in enumerate(CORNERS):
        y, x = divmod(index, 2)
        image[y * (height - 16) :, x * (width - 16) :][:16, :16] = colour
    return image


def corners(frame: np.ndarray[Any, Any]) -> str:
    """Which stored corner is at each corner of the frame."""
    ends = [frame[y, x].astype(int) for y in (6, -6) for x in (6, -6)]
    return "".join(str(np.abs(CORNERS.astype(int) - end).sum(axis=1).argmin()) for end in ends)


def patched(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """The MP4 file with another matrix in its first track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[at : at + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data)
    return path


def first(path: Path, **options: Any) -> tuple[np.ndarray[Any, Any], list[str]]:
    """A file's first frame, and its warnings."""
    with open_source(path, fps=None, **options) as frames:
        shown = [frame for _, frame in frames]
        return shown[0], frames.warnings


def by_ffmpeg(path: Path, height: int, width: int, filters: str = "null") -> np.ndarray[Any, Any]:
    """The first frame as the ffmpeg program shows it."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("the ffmpeg program is not installed")
    found = subprocess.run(
        [program, "-v", "error", "-i", str(path), "-frames:v", "1", "-vf", filters,
         "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        check=True, capture_output=True,
    )  # fmt: skip
    return np.frombuffer(found.stdout, np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_all_eight_orientations(tmp_path: Path, number: int) -> None:
    """Mirrored to the left and to the top, transposed, and each of these turned."""
    matrix, want = ORIENTATIONS[number]
    path = write_video(tmp_path / "a.mp4", [0, 500], frames=[marked()] * 2, pixels="yuv444p")
    frame, warnings = first(patched(path, matrix))
    assert corners(frame) == want
    assert frame.shape == ((80, 48, 3) if number > 4 else (48, 80, 3))
    assert frame.flags.c_contiguous
    assert warnings == []


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_orientations_are_ffmpegs(tmp_path: Path, number: int) -> None:
    path = write_video(tmp_path / "a.mp4", [0, 500], frames=[marked()] * 2, pixels="yuv444p")
    frame, _ = first(patched(path, ORIENTATIONS[number][0]))
    theirs = by_ffmpeg(path, *frame.shape[:2])
    assert np.abs(frame.astype(int) - theirs.astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("filter", "want"),
    [("rotate=270", "2031"), ("flip=horizontal", "1032"), ("flip=vertical", "2301")],
)
def test_an_orientation_in_the_video_itself(tmp_path: Path, filter: str, want: str) -> None:
    """Some cameras write the orientation between H.264's frames and not into the container."""
    plain = write_video(tmp_path / "a.mp4", [0, 500], frames=[marked()] * 2, pixels="yuv444p")
    path = tmp_path / "b.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        copy = target.add_stream_from_template(video)
        bits = av.BitStreamFilterContext(
            f"h264_metadata=display_orientation=insert:{filter}", video
        )
        for packet in source.demux(video):
            for changed in bits.filter(packet):
                changed.stream = copy
                target.mux(changed)
    frame, warnings = first(path)
    assert corners(frame) == want
    assert warnings == []


@pytest.mark.parametrize(("degrees", "number"), [(30, 1), (-60, 8), (80, 6), (170, 3)])
def test_an_odd_angle_becomes_the_nearest_right_angle(
    tmp_path: Path, degrees: float, number: int
) -> None:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    path = write_video(tmp_path / "a.mp4", [0, 500], frames=[marked()] * 2, pixels="yuv444p")
    frame, warnings = first(patched(path, (c, s, -s, c)))
    assert corners(frame) == ORIENTATIONS[number][1]
    assert len(warnings) == 1
    assert "nearest" in warnings[0]


@pytest.mark.parametrize(("degrees", "number"), [(0, 1), (90, 8), (-90, 6), (180, 3), (-180, 3)])
def test_side_data_that_pyav_cannot_name_leaves_the_turn(
    degrees: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV raises for all of a frame's side data where it has no name for one of them."""

    def unnamed(frame: object) -> None:
        raise ValueError("41 is not a valid Type")

    monkeypatch.setattr("av.sidedata.sidedata.SideDataContainer", unnamed)
    matrix = display_matrix(SimpleNamespace(rotation=degrees))  # type: ignore[arg-type]
    assert matrix is not None
    assert orientation_of(matrix) == (number, True)


def test_a_matrix_that_shows_nothing_is_told() -> None:
    assert orientation_of([0] * 9) == (1, False)
    assert orientation_of([1 << 16, 0, 0, 0, 3 << 16, 0, 0, 0, 1 << 30]) == (1, True)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "mpeg2video"), ("a.mov", "mpeg4")],
)
@pytest.mark.parametrize("aspect", [Fraction(32, 27), Fraction(8, 9), Fraction(1)])
def test_pixels_are_made_square(tmp_path: Path, name: str, codec: str, aspect: Fraction) -> None:
    """NTSC, wide and not, in containers that say so themselves and in one that does not."""
    path = with_aspect(tmp_path / name, codec, aspect)
    frame, warnings = first(path)
    ratio = frame.shape[1] / frame.shape[0]
    assert ratio == pytest.approx(720 / 480 * float(aspect), rel=3e-3)
    assert min(frame.shape[1] / 720, frame.shape[0] / 480) == 1  # nothing is thrown away
    assert corners(frame) == "0123"
    assert warnings == []
    small, _ = first(path, max_side=100)
    assert max(small.shape[:2]) == 100
    assert small.shape[1] / small.shape[0] == pytest.approx(ratio, rel=0.02)


def with_aspect(path: Path, codec: str, aspect: Fraction) -> Path:
    """A video of 720×480 whose pixels have an aspect."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 480, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(marked(720, 480), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path: Path) -> None:
    path = with_aspect(tmp_path / "a.mp4", "libx264", Fraction(2))
    frame, _ = first(patched(path, ORIENTATIONS[6][0]), max_side=900)
    assert frame.shape == (900, 300, 3)
    assert corners(frame) == ORIENTATIONS[6][1]


def test_an_aspect_that_changes_midway_is_followed(tmp_path: Path) -> None:
    """Television switches from 4:3 to 16:9 between programmes."""
    parts = [
        with_aspect(tmp_path / f"{n}.mpg", "mpeg2video", Fraction(*aspect)).read_bytes()
        for n, aspect in enumerate([(8, 9), (32, 27)])
    ]
    path = tmp_path / "both.m2v"
    path.write_bytes(b"".join(elementary(part, tmp_path) for part in parts))
    with open_source(path, fps=None) as frames:
        sizes = {frame.shape[:2] for _, frame in frames}
    assert sizes == {(540, 720), (480, 853)}


def elementary(data: bytes, folder: Path) -> bytes:
    """A program stream's video without its container."""
    (folder / "in.mpg").write_bytes(data)
    with av.open(str(folder / "in.mpg")) as source:
        return b"".join(bytes(packet) for packet in source.demux(video=0))


def test_an_absurd_aspect_is_told_and_not_applied(tmp_path: Path) -> None:
    frame, warnings = first(with_aspect(tmp_path / "a.mkv", "libx264", Fraction(1, 200)))
    assert frame.shape == (480, 720, 3)
    assert len(warnings) == 1
    assert "shown square" in warnings[0]


def test_a_live_sources_absurd_aspect_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = with_aspect(tmp_path / "a.mkv", "libx264", Fraction(1, 200))
    with av.open(str(path)) as container:
        screen = Screen(container.streams.video[0], "camera")
        shapes = [screen(frame).shape for frame in container.decode(video=0)]
    assert shapes == [(480, 720, 3)] * 3
    assert [record.message.split(":")[0] for record in caplog.records] == ["camera"]


def test_a_size_stays_within_what_a_frame_may_have() -> None:
    assert shown_size(10000, 8000, Fraction(2)) == (10000, 4000)
    assert shown_size(100, 100, Fraction(1, 3)) == (100, 300)
    assert shown_size(100, 100, Fraction(3), 150) == (150, 50)


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_other_readers_frames_are_shown_the_same(number: int) -> None:
    frame = show(marked(), Look(orientation=number, aspect=Fraction(2)), 120)
    assert corners(frame) == ORIENTATIONS[number][1]
    assert sorted(frame.shape) == [3, 36, 120]


@pytest.mark.parametrize(
    ("codec", "name"), [("png", "a.mov"), ("qtrle", "a.mov"), ("ffv1", "a.mkv")]
)
def test_transparent_parts_are_white(tmp_path: Path, codec: str, name: str) -> None:
    """Siblings: no alpha at all is opaque, and so is a recorder's empty channel."""
    layer = np.zeros((48, 80, 4), np.uint8)
    layer[:, :40] = (200, 0, 0, 255)
    layer[:, 60:] = (200, 0, 0, 128)
    empty = layer.copy()
    empty[..., 3] = 0
    for image, want in ((layer, [[200, 0, 0], [255, 255, 255], [227, 127, 127]]),
                        (empty, [[200, 0, 0], [0, 0, 0], [200, 0, 0]])):  # fmt: skip
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=5)
            stream.width, stream.height = 80, 48
            stream.pix_fmt = {"png": "rgba", "qtrle": "argb", "ffv1": "bgra"}[codec]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
            container.mux(stream.encode())
        frame, _ = first(path)
        np.testing.assert_allclose(frame[24, [10, 50, 70]], want, atol=1)
