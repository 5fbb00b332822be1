"""When frames of real files are shown: pictures that stay, joined recordings, odd containers."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import number_of, numbered, steady, write_video

from mmkv.video import open_source
from mmkv.video.matroska import declared_bytes

READERS = ["pyav", "decord", "opencv"]
SLIDES = [0.0, 10.0, 30.0, 31.5, 50.0]  # seconds
END = 70.0


def write_slides(
    path: Path, times: list[float], end: float, codec: str = "libx264", pixels: str = "yuv420p"
) -> Path:
    """A film whose frame i is `numbered(i)`, shown from ``times[i]`` on, the last until `end`."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = 80, 48, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "bf": "0"}
        packets = []
        for index, when in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = round(when * 1000), Fraction(1, 1000)
            packets += stream.encode(frame)
        for packet, until in zip([*packets, *stream.encode()], [*times[1:], end], strict=True):
            packet.duration = round(until * 1000) - packet.pts
            container.mux(packet)
    return path


def read(path: Path, fps: float | None, reader: str = "pyav") -> tuple[list[Any], list[str]]:
    """`(seconds, number)` of every frame, and the warnings."""
    with open_source(path, fps=fps, reader=reader) as frames:
        got = [(round(seconds, 3), number_of(frame)) for seconds, frame in frames]
        return got, list(frames.warnings)


def on_screen(times: list[float], end: float) -> list[tuple[float, int]]:
    """What a viewer sees at 1 frame per second; each picture first at its own time."""
    found: list[tuple[float, int]] = []
    for second in range(int(end)):
        index = sum(when <= second for when in times) - 1
        found.append((times[index] if index not in [n for _, n in found] else second, index))
    return found


def alike(got: list[tuple[float, int]], want: list[tuple[float, int]]) -> None:
    """Check that the same frames come at the same times."""
    assert [number for _, number in got] == [number for _, number in want]
    assert [when for when, _ in got] == pytest.approx([when for when, _ in want], abs=2e-3)


# pictures that stay


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_a_picture_that_stays_is_on_screen_all_the_time(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    """Slides and screen recordings: `since=25, until=35` has frames, as at a constant rate.

    Siblings: each container, the last picture, a rate above and below the film's, every frame.
    """
    path = write_slides(tmp_path / name, SLIDES, END, codec, pixels)
    got, warnings = read(path, 1.0)
    alike(got, on_screen(SLIDES, END))
    assert warnings == []
    got, warnings = read(path, None)
    alike(got, list(zip(SLIDES, range(5), strict=True)))
    assert warnings == []
    got, _ = read(path, 0.1)
    assert [number for _, number in got] == [0, 1, 1, 2, 3, 4, 4]


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_keeps_a_picture_that_stays(tmp_path: Path, reader: str) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    path = write_slides(tmp_path / "a.mp4", SLIDES, END)
    got, _ = read(path, 1.0, reader)
    alike(got[:50], on_screen(SLIDES, END)[:50])


def test_one_picture_for_a_minute(tmp_path: Path) -> None:
    """Music with a still: one frame, and an end."""
    for name in ("a.mp4", "a.mkv"):
        got, warnings = read(write_slides(tmp_path / name, [0.0], 60.0), 1.0)
        assert got == [(float(second), 0) for second in range(60)]
        assert warnings == []


def test_a_film_that_was_cut_off_does_not_keep_its_last_picture(tmp_path: Path) -> None:
    """Only a whole Matroska file says that the last picture stays to the declared end."""
    whole = write_video(tmp_path / "a.mkv", steady(100, 2)).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    got, warnings = read(path, 1.0)
    assert 10 < got[-1][0] < 40
    assert "ends early" in warnings[-1]


def test_how_long_a_matroska_file_is_by_its_own_account(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.webm"):
        codec = "libvpx" if name.endswith("webm") else "libx264"
        data = write_video(tmp_path / name, steady(5), codec=codec).read_bytes()
        assert declared_bytes(data) == len(data)
        assert declared_bytes(data[:20]) is None
    live = write_video(tmp_path / "b.mkv", steady(5), container_options={"live": "1"})
    assert declared_bytes(live.read_bytes()) is None
    assert declared_bytes(b"RIFF") is None
    assert declared_bytes(b"\x1a\x45\xdf\xa3") is None
    assert declared_bytes(b"\x1a\x45\xdf\xa3" + bytes(9)) is None


def test_a_long_hold_is_converted_once_and_ends_at_once(tmp_path: Path) -> None:
    path = write_slides(tmp_path / "a.mp4", [0.0, 3000.0], 3001.0)
    frames = open_source(path, fps=10.0)
    reading = iter(frames)
    taken = [next(reading) for _ in range(50)]
    assert len({id(frame) for _, frame in taken}) == 1
    started = time.monotonic()
    frames.close()
    assert list(reading) == []
    assert time.monotonic() - started < 2.0
    assert not [one for one in threading.enumerate() if str(path) in one.name]


def test_frames_that_a_caller_makes_are_instants(tmp_path: Path) -> None:
    pairs = [(0.0, numbered(0)), (20.0, numbered(1))]
    for source in (pairs, iter(pairs)):
        if isinstance(source, list):
            made = open_source(
                [frame for _, frame in source], times=[when for when, _ in source], fps=1.0
            )
        else:
            made = open_source(source, fps=1.0)
        with made as frames:
            assert [seconds for seconds, _ in frames] == [0.0, 20.0]


# AVI, and raw streams


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "2", "preset": "veryfast"}),
        ("libx264", {"bf": "3", "x264-params": "b-pyramid=normal"}),
        ("mpeg4", {"bf": "2"}),
        ("mjpeg", {}),
    ],
)
def test_avi_with_frames_out_of_order_gives_all_in_the_order_of_display(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    """AVI numbers packets in the order of decoding. Siblings: H.264, a pyramid of B-frames,
    MPEG-4 ASP, no B-frames; below, H.265 and ffmpeg's copies, whose header counts twice."""
    made = write_at_rate(tmp_path / "a.avi", codec, options)
    got, warnings = read(made, None)
    assert [number for _, number in got] == list(range(60))
    assert [seconds for seconds, _ in got] == pytest.approx(np.arange(60) / 10, abs=0.11)
    assert warnings == []


def write_at_rate(
    path: Path, codec: str, options: dict[str, str], format: str | None = None
) -> Path:
    """60 numbered frames at 10 per second, in a container that may have no times."""
    with av.open(str(path), "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height = 80, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 12
        stream.options = options
        for index in range(60):
            image = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
def test_avi_copied_from_mp4_by_ffmpeg(tmp_path: Path) -> None:
    import subprocess

    kinds = {
        "libx264": {"bf": "2", "preset": "veryfast"},
        "libx265": {"x265-params": "log-level=none:bframes=3"},
        "mpeg4": {"bf": "2"},
    }
    for codec, options in kinds.items():
        made = write_at_rate(tmp_path / "a.mp4", codec, options)
        copy = ["ffmpeg", "-v", "error", "-y", "-i", str(made), "-c", "copy"]
        copy += ["-tag:v", "HEVC"] if codec == "libx265" else []
        subprocess.run([*copy, str(tmp_path / "b.avi")], check=True)
        got, warnings = read(tmp_path / "b.avi", None)
        assert [number for _, number in got] == list(range(60))
        assert [seconds for seconds, _ in got] == pytest.approx(np.arange(60) / 10, abs=0.21)
        assert warnings == []


@pytest.mark.parametrize(
    ("name", "codec", "options", "rate"),
    [
        ("a.h264", "libx264", {"bf": "2"}, 10),
        ("a.hevc", "libx265", {"x265-params": "log-level=none"}, 10),
        ("a.m4v", "mpeg4", {"bf": "2"}, 10),
        ("a.mjpeg", "mjpeg", {}, None),
    ],
)
def test_raw_streams_run_at_their_own_rate(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], rate: float | None
) -> None:
    """Readers guess 25 frames per second for streams without times; pictures may declare better."""
    format = "m4v" if name == "a.m4v" else None
    path = write_at_rate(tmp_path / name, codec, options, format)
    got, warnings = read(path, None)
    assert [number for _, number in got] == list(range(60))
    assert [seconds for seconds, _ in got] == pytest.approx(np.arange(60) / (rate or 25), abs=1e-3)
    says = f"its own rate of {rate} frames" if rate else "neither times nor a rate; 25 frames"
    assert len(warnings) == 1
    assert says in warnings[0]


# transport streams that were joined


def part(folder: Path, begin: float, count: int = 40, fps: float = 10) -> bytes:
    """A transport stream of numbered frames whose clock begins at `begin` seconds."""
    times = [round(1000 * begin) + when for when in steady(count, fps)]
    return write_video(folder / "part.ts", times, options={"bf": "2"}).read_bytes()


@pytest.mark.parametrize(
    "begins",
    [
        pytest.param([100.0, 0.0], id="back 100 s"),
        pytest.param([0.0, 40_000.0], id="ahead 11 h"),
        pytest.param([0.0, 10.0], id="ahead 10 s"),
        pytest.param([50.0, 50.0, 50.0], id="the same again"),
        pytest.param([2**33 / 9e4 - 3.4, 0.6], id="counter overflow"),
        pytest.param([300.0, 0.0, 90_000.0, 20.0], id="four"),
    ],
)
def test_joined_transport_streams_go_on(tmp_path: Path, begins: list[float]) -> None:
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part(tmp_path, begin) for begin in begins))
    with open_source(path, fps=None) as frames:
        times = [seconds for seconds, _ in frames]
        duration = frames.duration
        warnings = list(frames.warnings)
    assert len(times) >= 40 * len(begins) - 2 * (len(begins) - 1)
    assert np.diff(times).max() < 2.0
    assert times[-1] == pytest.approx(4.0 * len(begins) - 0.1, abs=0.5)
    assert duration == pytest.approx(times[-1], abs=0.5)
    # FFmpeg carries a counter over by itself
    assert len(warnings) == (0 if begins[0] > 90_000 else 1)
    with open_source(path, fps=1.0) as frames:
        assert abs(len(list(frames)) - 4 * len(begins)) <= 1


def test_many_pieces_of_a_second_lose_no_frame(tmp_path: Path) -> None:
    piece = part(tmp_path, 5.0, count=10)
    path = tmp_path / "pieces.ts"
    path.write_bytes(piece * 4)
    got, warnings = read(path, None)
    assert [number for _, number in got] == [*range(10)] * 4
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(got))
    assert got[-1][0] == pytest.approx(3.9, abs=0.2)
    assert len(warnings) == 1


def test_one_badly_stamped_frame_of_a_transport_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        packets = []
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            packets += stream.encode(frame)
        for index, packet in enumerate([*packets, *stream.encode()]):
            if index == 30:
                packet.pts += 2000 * packet.time_base.denominator
            container.mux(packet)
    got, _ = read(path, None)
    assert [number for _, number in got] == list(range(60))
    times = [seconds for seconds, _ in got]
    assert times == pytest.approx(np.arange(60) / 25, abs=0.09)
