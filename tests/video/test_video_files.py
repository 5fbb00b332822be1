"""Good files: every container, codec and pixel format gives the right frames at their times."""

from __future__ import annotations

import importlib.util
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from video_files import number_of, numbered, steady, write_video

from mmkv.video import open_source
from mmkv.video.shown import ShownSampler, shown

READERS = ["pyav", "decord", "opencv"]


def irregular(count: int, seed: int = 0) -> list[int]:
    """Times in milliseconds with gaps from 10 ms to 1.5 s."""
    draw = random.Random(seed)
    times = [0]
    while len(times) < count:
        times.append(times[-1] + draw.choice([10, 33, 40, 100, 700, 1500]))
    return times


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    times = irregular(80)
    path = tmp_path_factory.mktemp("videos") / "uneven.mp4"
    return write_video(path, times, options={"bf": "2"}), times


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fps", [None, 0.7, 1.0, 4.0, 25.0])
def test_variable_rate_is_sampled_by_presentation_time(
    uneven: tuple[Path, list[int]], reader: str, fps: float | None
) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    path, times = uneven
    exact = ((time / 1000, index) for index, time in enumerate(times))
    chosen = shown(exact, ShownSampler(fps), lambda: None)
    want = [(seconds, one.item) for one in chosen for seconds in one.times]
    with open_source(path, fps=fps, reader=reader) as frames:
        got = [(seconds, number_of(frame)) for seconds, frame in frames]
        assert frames.warnings == []
    # what the last frame's duration is, containers and readers disagree on
    got, want = ([pair for pair in pairs if pair[1] != 79] for pairs in (got, want))
    assert [index for _, index in got] == [index for _, index in want]
    assert [seconds for seconds, _ in got] == pytest.approx([when for when, _ in want], abs=2e-3)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuvj420p"),
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mp4", "libx264", "gray"),
        ("a.mp4", "libx265", "yuv420p"),
        ("a.mkv", "libx264", "yuv444p"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "gray16le"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mov", "png", "rgba"),
    ],
)
def test_every_format_gives_upright_contiguous_rgb(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    path = write_video(tmp_path / name, steady(20, 10), codec=codec, pixels=pixels)
    with open_source(path, fps=None) as frames:
        got = list(frames)
    assert [number_of(frame) for _, frame in got] == list(range(20))
    assert [seconds for seconds, _ in got] == pytest.approx(
        [index / 10 for index in range(20)], abs=2e-3
    )
    for _, frame in got:
        assert frame.shape == (48, 80, 3)
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous
        assert frame.flags.writeable


def test_odd_sizes_have_no_padding_and_no_skew(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "odd.mkv", steady(5, 5), codec="ffv1", pixels="bgr0", size=(83, 47)
    )
    with open_source(path, fps=None) as frames:
        for index, (_, frame) in enumerate(frames):
            np.testing.assert_array_equal(frame, numbered(index, 83, 47))


def test_colours_are_rgb_and_not_bgr(tmp_path: Path) -> None:
    red = np.zeros((48, 80, 3), np.uint8)
    red[..., 0] = 220
    path = write_video(tmp_path / "red.mp4", [0, 500], frames=[red, red])
    for reader in READERS:
        if importlib.util.find_spec(reader) is None and reader == "decord":
            continue
        with open_source(path, fps=None, reader=reader) as frames:
            _, frame = next(iter(frames))
        assert frame[20, 40, 0] > 180
        assert frame[20, 40, 2] < 40


def test_times_are_what_a_players_clock_shows(tmp_path: Path) -> None:
    """A transport stream starts at 1.4 s or later; its first frame is still at 0 to a viewer."""
    path = write_video(tmp_path / "late.ts", [5000, 5500, 6000])
    with open_source(path, fps=None) as frames:
        assert [seconds for seconds, _ in frames] == pytest.approx([0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((0, 1, -1, 0), "top right"),  # shot with the camera turned 90° clockwise
        ((-1, 0, 0, -1), "bottom right"),
        ((0, -1, 1, 0), "bottom left"),
    ],
)
def test_rotation_of_phone_videos_is_applied(
    tmp_path: Path, matrix: tuple[int, int, int, int], corner: str
) -> None:
    image = np.zeros((48, 80, 3), np.uint8)
    image[:16, :16] = 230  # a mark at the top left as stored
    path = write_video(tmp_path / "phone.mp4", [0, 500], frames=[image, image])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data)
    with open_source(path, fps=None) as frames:
        _, frame = next(iter(frames))
    sideways = matrix[0] == 0
    assert frame.shape == ((80, 48, 3) if sideways else (48, 80, 3))
    corners = {
        "top left": frame[8, 8],
        "top right": frame[8, -8],
        "bottom left": frame[-8, 8],
        "bottom right": frame[-8, -8],
    }
    assert [name for name, pixel in corners.items() if pixel.mean() > 128] == [corner]


def test_max_side_shrinks_in_proportion_while_decoding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", steady(3), size=(640, 320))
    with open_source(path, fps=None, max_side=160) as frames:
        got = list(frames)
    assert [frame.shape for _, frame in got] == [(80, 160, 3)] * 3
    assert [number_of(frame) for _, frame in got] == [0, 1, 2]


def test_duration_name_and_repr(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", steady(50), audio_seconds=4.0)
    with open_source(path) as frames:
        assert frames.name == str(path)
        assert frames.duration == pytest.approx(2.0, abs=0.05)
        assert not frames.live
        assert frames.dropped == 0
        assert "clip.mp4" in repr(frames)
        list(frames)
        assert frames.warnings == []


def test_a_cover_image_is_not_the_video(tmp_path: Path) -> None:
    """Cover art is a video stream to FFmpeg, larger than the film at times."""
    import av

    path = tmp_path / "cover.mp4"
    plain = write_video(tmp_path / "plain.mp4", steady(10, 10))
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        film = target.add_stream_from_template(source.streams.video[0])
        cover = target.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 400, 400, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = film
                target.mux(packet)
        frame = av.VideoFrame.from_ndarray(np.zeros((400, 400, 3), np.uint8), format="rgb24")
        frame.pts = 0
        target.mux(cover.encode(frame))
        target.mux(cover.encode())
    with open_source(path, fps=None) as frames:
        assert [number_of(frame) for _, frame in frames] == list(range(10))


def test_names_that_look_like_protocols_are_files(tmp_path: Path) -> None:
    for name in ("concat:a|b.mp4", "http:x.mp4", "frame%03d.mp4", "ünï cödé 录像.mp4"):
        path = write_video(tmp_path / "plain.mp4", steady(3)).rename(tmp_path / name)
        with open_source(str(path), fps=None) as frames:
            assert [number_of(frame) for _, frame in frames] == [0, 1, 2]


def test_file_addresses_are_paths(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a b.mp4", steady(3))
    with open_source(path.as_uri(), fps=None) as frames:
        assert len(list(frames)) == 3


def test_foreign_video_reads_alike_with_every_reader() -> None:
    gradio = pytest.importorskip("gradio")
    path = Path(gradio.__file__).parent / "media_assets" / "videos" / "world.mp4"
    found = {}
    for reader in READERS:
        if reader == "decord" and importlib.util.find_spec("decord") is None:
            continue
        with open_source(path, fps=0.5, reader=reader, max_side=200) as frames:
            found[reader] = list(frames)
    assert len(found["pyav"]) == 16
    for reader, got in found.items():
        assert [when for when, _ in got] == pytest.approx([2.0 * k for k in range(16)]), reader
        for (_, one), (_, other) in zip(got, found["pyav"], strict=True):
            assert np.abs(one.astype(int) - other).mean() < 4
