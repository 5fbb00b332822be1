"""Bad files: one sentence naming file and cause, or a warning and the frames; never a hang."""

from __future__ import annotations

import importlib.util
import random
import re
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import number_of, numbered, silence, steady, write_video

from mmkv.video import VideoError, VideoNotFoundError, open_source

HAS_DECORD = importlib.util.find_spec("decord") is not None
READERS = ["pyav", "opencv", *(["decord"] if HAS_DECORD else [])]


def refusal(source: object, reader: str = "auto") -> str:
    """The error's text; it must be one line that names the file, with nothing attached."""
    with (
        pytest.raises(VideoError) as caught,
        open_source(source, fps=None, reader=reader) as frames,
    ):
        list(frames)
    text = str(caught.value)
    assert "\n" not in text
    assert str(source) in text
    assert caught.value.__cause__ is None
    return text


def read(path: Path, reader: str = "auto") -> tuple[list[int], list[str]]:
    """The numbers of the frames that can be read, and the warnings."""
    with open_source(path, fps=None, reader=reader) as frames:
        numbers = [number_of(frame) for _, frame in frames]
        return numbers, frames.warnings


def read_or_refuse(path: Path, reader: str = "auto") -> tuple[list[int], list[str]]:
    """As `read`, with a refusal as the only warning."""
    try:
        return read(path, reader)
    except VideoError as error:
        return [], [str(error)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good clips of 100 noisy frames (4 s), so that half of the bytes is half of the film."""
    path = tmp_path_factory.mktemp("good")
    noise = np.random.default_rng(0).integers(0, 60, (100, 48, 80, 3), dtype=np.uint8)
    frames = [(numbered(index) * 0.7).astype(np.uint8) + noise[index] for index in range(100)]
    front = {"movflags": "faststart"}
    write_video(path / "front.mp4", steady(100), frames=frames, container_options=front)
    write_video(path / "back.mp4", steady(100), frames=frames)
    write_video(path / "good.mkv", steady(100), frames=frames)
    write_video(path / "good.ts", steady(100), frames=frames)
    return path


@pytest.mark.parametrize("reader", READERS)
def test_missing_file(tmp_path: Path, reader: str) -> None:
    assert "no such file" in refusal(tmp_path / "absent.mp4", reader)
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4: there is no such file"):
        open_source(tmp_path / "absent.mp4")
    assert issubclass(VideoNotFoundError, VideoError)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"just text\n" * 100, b"\x00\x00\x01\xb3"])
def test_files_that_are_no_video(tmp_path: Path, reader: str, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    text = refusal(path, reader)
    assert ("0 bytes" in text) == (content == b"")


def test_a_still_image_named_mp4(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(numbered(1)).save(tmp_path / "clip.png")
    (tmp_path / "clip.png").rename(tmp_path / "clip.mp4")
    assert "still image" in refusal(tmp_path / "clip.mp4")


@pytest.mark.parametrize("reader", READERS)
def test_sound_without_a_picture(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        container.mux(silence(container.add_stream("aac", rate=8000), 1.0))
    text = refusal(path, reader)
    if reader == "pyav":
        assert "no video stream in it (only audio)" in text


def test_unreadable_paths(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.mp4")
    assert "neither a file nor a folder" in refusal(tmp_path / "pipe.mp4")
    for path in ("x" * 5000, "a\0b.mp4"):
        with pytest.raises(VideoError, match="cannot be opened as a path"):
            open_source(path)
    (tmp_path / "empty").mkdir()
    assert "no images in this folder" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("reader", READERS)
def test_cut_off_before_its_index(folder: Path, tmp_path: Path, reader: str) -> None:
    data = (folder / "back.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    refusal(tmp_path / "cut.mp4", reader)


@pytest.mark.parametrize("name", ["front.mp4", "good.mkv"])
def test_cut_in_the_middle_gives_a_warning_and_the_frames(
    folder: Path, tmp_path: Path, name: str
) -> None:
    data = (folder / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    numbers, warnings = read(path)
    assert 40 <= len(numbers) <= 55
    assert numbers[:40] == list(range(40))
    assert warnings[-1].startswith(f"{path}: the file ends early at ")
    assert f"{len(numbers)} frames were read" in warnings[-1]


@pytest.mark.parametrize("name", ["front.mp4", "good.mkv", "good.ts"])
def test_damaged_bytes_in_the_middle_give_a_warning_and_the_rest(
    folder: Path, tmp_path: Path, name: str
) -> None:
    data = bytearray((folder / name).read_bytes())
    draw = random.Random(1)
    for at in range(len(data) // 2, len(data) * 6 // 10):
        data[at] = draw.randrange(256)
    path = tmp_path / name
    path.write_bytes(data)
    numbers, warnings = read(path)
    assert len(numbers) >= 70
    assert numbers[:40] == list(range(40))
    assert numbers[-1] == 99
    assert any(f"{path}: damaged data" in line for line in warnings)


@pytest.mark.skipif(not HAS_DECORD, reason="decord is not installed")
@pytest.mark.parametrize("name", ["front.mp4", "good.mkv", "good.ts"])
def test_decord_survives_damage(folder: Path, tmp_path: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    numbers, problems = read_or_refuse(tmp_path / name, "decord")
    assert problems or name != "front.mp4"  # decord knows no declared length, only its index
    assert numbers[:30] == list(range(30))[: len(numbers)]
    assert all(name in line and "github" not in line for line in problems)


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_never_hangs_and_never_shows_a_foreign_error(
    folder: Path, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    name = draw.choice(["front.mp4", "good.mkv", "good.ts"])
    data = bytearray((folder / name).read_bytes())
    for _ in range(draw.choice([5, 50, 500])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    (tmp_path / name).write_bytes(data[: draw.randrange(200, len(data))])
    _, problems = read_or_refuse(tmp_path / name)
    assert all(name in line for line in problems)


@pytest.mark.parametrize("reader", READERS)
def test_container_that_declares_more_frames_than_it_has(
    folder: Path, tmp_path: Path, reader: str
) -> None:
    data = bytearray((folder / "front.mp4").read_bytes())
    at = data.index(b"stts") + 12
    data[at : at + 4] = struct.pack(">I", 5000)
    (tmp_path / "lie.mp4").write_bytes(data)
    numbers, _ = read(tmp_path / "lie.mp4", reader)
    assert numbers == list(range(100))


def test_container_that_declares_a_longer_film_than_it_is(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "good.mkv").read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes
    data[at : at + 8] = struct.pack(">d", 1e6)
    tag = data.index(b"00:00:0")
    data[tag : tag + 8] = b"00:16:40"
    (tmp_path / "lie.mkv").write_bytes(data)
    numbers, warnings = read(tmp_path / "lie.mkv")
    assert numbers == list(range(100))
    assert "ends early at 4.0 s; 100 frames were read (it declares 100" in warnings[0]


def test_a_film_without_frames(tmp_path: Path) -> None:
    fragmented = {"movflags": "empty_moov+frag_keyframe+default_base_moof"}
    path = write_video(tmp_path / "clip.mp4", steady(20), container_options=fragmented)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    assert "not a single frame" in refusal(path)


def test_absurd_sizes_are_refused(tmp_path: Path) -> None:
    tall = write_video(
        tmp_path / "tall.mov", [0, 100], codec="png", pixels="rgb24", size=(8, 17000)
    )
    assert "8×17000 pixels is too large" in refusal(tall)
    data = bytearray(
        write_video(tmp_path / "bomb.mov", [0, 100], codec="png", pixels="rgb24").read_bytes()
    )
    at = data.rindex(b"png ") + 28  # what the index says, and what the decoder finds
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    for found in re.finditer(b"IHDR", bytes(data)):
        data[found.end() : found.end() + 8] = struct.pack(">II", 60000, 60000)
    (tmp_path / "bomb.mov").write_bytes(data)
    refusal(tmp_path / "bomb.mov")
    with pytest.raises(VideoError, match="too large"):
        list(open_source(np.broadcast_to(np.zeros((), np.uint8), (1, 20000, 8, 3))))


def test_frame_size_that_changes_midway(tmp_path: Path) -> None:
    """Two recordings joined: the frames are given in their own sizes, with one warning."""
    first = write_video(tmp_path / "a.ts", steady(10, 10))
    second = write_video(
        tmp_path / "b.ts", [1000 + time for time in steady(10, 10)], size=(160, 96)
    )
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_source(path, fps=None) as frames:
        shapes = [frame.shape for _, frame in frames]
    assert {shape[:2] for shape in shapes} == {(48, 80), (96, 160)}
    changes = [line for line in frames.warnings if "frame size changes" in line]
    assert len(changes) == 1
    assert "from 80×48 to 160×96" in changes[0]


def test_joined_recordings_whose_clock_starts_again(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.ts", steady(30, 10)).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(clip + clip)
    with open_source(path, fps=None) as frames:
        times = [seconds for seconds, _ in frames]
    assert np.all(np.diff(times) > 0)
    assert len(times) == 60
    assert times[-1] == pytest.approx(5.9, abs=0.1)


def test_a_local_playlist_opens_no_network_address(folder: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    class Spy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Spy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/secret.ts"
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{base}\n#EXT-X-ENDLIST\n",
        "b.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{base}\n#EXT-X-ENDLIST\n",
        "c.txt": f"ffconcat version 1.0\nfile '{base}'\n",
        "d.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {server.server_port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }
    try:
        for name, text in lists.items():
            (tmp_path / name).write_text(text)
            for reader in READERS:
                refusal(tmp_path / name, reader)
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []
