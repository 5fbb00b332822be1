"""The demo: what a visitor's file or picture may take before it is ended.

The kind: something small that is sent takes much time or memory to open. Siblings tried here:
frames that are declared huge, and some that are large; more tracks than a video has; a frame in
each of thousands of fragments; frames of which none is chosen; a decoder without enough memory; a
process that is killed; pictures that are declared huge, damaged, out of turn, or sent at once.
"""

from __future__ import annotations

import os
import signal
import struct
import threading
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from demo_visitors import Clock, until
from video_servers import jpeg
from waiting import PATIENCE, finish

from mmkv.demos.app import camera
from mmkv.demos.app.bounds import Bounds
from mmkv.demos.app.camera import CameraSource, decode
from mmkv.demos.app.files import FORMATS, open_file
from mmkv.demos.app.isolated import IsolatedFile
from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.video import VideoError


def opened(path: Path, fps: float | None = 1.0, **bounds: int) -> IsolatedFile:
    return IsolatedFile(path, path.name, fps, 1280, FORMATS, Bounds(**bounds))


def repeated(path: Path, side: int, count: int, **options: str) -> Path:
    """One frame of `side`² pixels, encoded once and written `count` times, 25 a second."""
    with av.open(str(path), "w", options=options) as out:
        track = out.add_stream("mjpeg", rate=25)
        track.width, track.height, track.pix_fmt = side, side, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24")
        (packet, *_) = [*track.encode(frame), *track.encode(None)]
        data = bytes(packet)
        for index in range(count):
            one = av.Packet(data)
            one.stream, one.pts, one.dts, one.time_base = track, index, index, packet.time_base
            one.is_keyframe = True
            out.mux(one)
    return path


def tracks(path: Path, count: int) -> Path:
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("mjpeg", rate=1) for _ in range(count)]
        for track in streams:
            track.width, track.height, track.pix_fmt = 16, 16, "yuvj420p"
        for track in streams:
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            out.mux([*track.encode(frame), *track.encode(None)])
    return path


def test_a_file_is_read_as_it_is_without_a_process_of_its_own() -> None:
    from mmkv.video import open_source

    with open_file(SAMPLE_VIDEO, "a.mp4", 1.0) as apart, open_source(SAMPLE_VIDEO, fps=1.0) as own:
        assert apart.duration == own.duration
        for (at, frame), (there, same) in zip(apart, own, strict=True):
            assert at == there
            assert np.array_equal(frame, same)


def test_a_process_outlives_the_thread_that_started_it() -> None:
    found: list[IsolatedFile] = []
    starting = threading.Thread(target=lambda: found.append(opened(SAMPLE_VIDEO)))
    starting.start()
    finish(starting)
    with found[0] as source:
        assert len(list(source)) == 150


def test_its_process_knows_no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMKV_DEMO_AUTH", "me:secret")
    with opened(SAMPLE_VIDEO) as source:
        pid = source._process._process.pid
        environment = Path(f"/proc/{pid}/environ")
        if not environment.exists():
            pytest.skip("needs /proc to look into another process")
        assert b"secret" not in environment.read_bytes()


def test_frames_that_are_declared_huge_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as out:
        track = out.add_stream("rawvideo", rate=25)
        track.width, track.height, track.pix_fmt = 64, 64, "bgr24"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="bgr24")
        out.mux([*track.encode(frame), *track.encode(None)])
    data = path.read_bytes()
    at = data.index(b"strf") + 8
    path.write_bytes(data[: at + 4] + struct.pack("<ii", 9_000, 9_000) + data[at + 12 :])
    with pytest.raises(VideoError, match=r"a\.avi: a frame of 9000×9000 pixels is too large"):
        opened(path)


def test_large_frames_are_refused_where_they_are_allowed_otherwise(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.avi", 512, 3)
    with opened(path, None) as source:
        assert len(list(source)) == 3
    with pytest.raises(VideoError, match="a frame of 512×512 pixels is too large"):
        opened(path, None, pixels=500 * 500)


def test_more_tracks_than_a_video_has_are_refused(tmp_path: Path) -> None:
    path = tracks(tmp_path / "a.mkv", 120)
    with pytest.raises(VideoError, match=r"a\.mkv: it has \d+ tracks or more; at most 100"):
        opened(path)
    with opened(path, streams=200) as source:
        assert len(list(source)) == 1


def test_a_frame_in_each_fragment_is_a_video(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.mp4", 16, 3000, movflags="frag_every_frame+empty_moov")
    with opened(path) as source:
        assert len(list(source)) == 120


def test_a_file_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.avi", 2048, 600)
    with (
        pytest.raises(VideoError, match=r"a\.avi: it takes more computing time"),
        opened(path, 0.001, cpu_seconds=1) as source,
    ):
        list(source)


def test_a_file_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.avi", 4096, 2)
    with (
        pytest.raises(VideoError, match=r"a\.avi: .*memory"),
        opened(path, memory_bytes=64_000_000) as source,
    ):
        list(source)


def test_a_process_that_is_killed_is_an_error_and_no_wait() -> None:
    with opened(SAMPLE_VIDEO) as source:
        process = source._process._process
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        with pytest.raises(VideoError, match="cannot be decoded"):
            list(source)


def test_closing_ends_the_process() -> None:
    source = opened(SAMPLE_VIDEO)
    reading = threading.Thread(target=lambda: list(source), daemon=True)
    reading.start()
    source.close()
    finish(reading)
    assert source._process._process.poll() is not None
    source.close()


# the camera


def png(width: int, height: int) -> bytes:
    """The beginning of a picture: its size, and no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("size", [(30_000, 30_000), (16_000, 1_001), (4_001, 4_000), (65_535, 1)])
def test_a_picture_that_is_declared_huge_is_refused_undecoded(size: tuple[int, int]) -> None:
    with pytest.raises(VideoError, match=r"too large|not a picture"):
        decode(png(*size))


@pytest.mark.parametrize(
    "picture", [b"", png(0, 0), png(9, 9), jpeg(1)[:-200], b"RIFF", b"\x00" * 99]
)
def test_what_is_no_picture_is_said(picture: bytes) -> None:
    with pytest.raises(VideoError, match=r"camera's picture"):
        decode(picture)


class Decodings:
    """Counts what is decoded; holds each until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.go = threading.Event()
        self._decode = camera.decode
        monkeypatch.setattr(camera, "decode", self)

    def __call__(self, picture: bytes) -> object:
        self.count += 1
        assert self.go.wait(PATIENCE)
        return self._decode(picture)


@pytest.mark.parametrize("good", [True, False])
def test_pictures_out_of_turn_are_not_decoded(good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, decodings = Clock(), Decodings(monkeypatch)
    decodings.go.set()
    source = CameraSource(1.0, 60.0, clock)
    for _ in range(200):
        try:
            source.put(jpeg(1) if good else b"damaged")
        except VideoError:
            assert not good
    assert decodings.count == 1
    clock.now = 0.8
    if good:
        assert source.put(jpeg(2))
    else:
        with pytest.raises(VideoError):
            source.put(b"damaged")
    assert decodings.count == 2


def test_pictures_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    decodings = Decodings(monkeypatch)
    source = CameraSource(1.0, 60.0, Clock())
    taken: list[bool] = []
    senders = [
        threading.Thread(target=lambda: taken.append(source.put(jpeg(1)))) for _ in range(20)
    ]
    for one in senders:
        one.start()
    until(lambda: len(taken) == 19)
    decodings.go.set()
    finish(*senders)
    assert sorted(taken) == [False] * 19 + [True]
    assert decodings.count == 1


@pytest.mark.parametrize("end", ["closed", "at its limit"])
def test_after_the_end_nothing_is_decoded(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, decodings = Clock(), Decodings(monkeypatch)
    decodings.go.set()
    source = CameraSource(1.0, 60.0, clock)
    assert source.put(jpeg(1))
    clock.now = 61.0
    if end == "closed":
        source.close()
    assert not source.put(jpeg(2))
    assert not source.put(jpeg(2))
    assert decodings.count == 1
    assert source.cut == (end != "closed")
