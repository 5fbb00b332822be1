"""Live sources: newest frame first, rising times, reconnecting, stopping at once, no passwords."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import number_of, numbered, steady, write_video
from video_servers import Camera, Mute, RtspCamera
from waiting import PATIENCE, by_itself, finish, until

from mmkv.video import Frame, Reconnect, VideoError, open_source
from mmkv.video.live import LiveSource
from mmkv.video.liveclock import LiveClock
from mmkv.video.mailbox import Mailbox

FAST = Reconnect(first_wait=0.02, max_wait=0.1)


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged at any level, FFmpeg's own lines included."""
    before = av.logging.get_level()
    av.logging.set_level(av.logging.TRACE)
    caplog.set_level(1)
    caplog.set_level(1, "libav")
    yield caplog
    av.logging.set_level(before)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Seconds and number of every frame that a source offers, whether or not it is read in time."""
    found: list[tuple[float, int]] = []
    put = Mailbox.put

    def noted(box: Mailbox, seconds: float, frame: Frame) -> None:
        found.append((seconds, number_of(frame)))
        put(box, seconds, frame)

    monkeypatch.setattr(Mailbox, "put", noted)
    return found


# the clock and the mailbox


def test_clock_follows_steady_times_and_ignores_jitter_of_arrival() -> None:
    clock = LiveClock()
    arrivals = [100.0, 100.5, 100.6, 103.9, 104.0]
    got = [clock.seconds(50 + index, wall) for index, wall in enumerate(arrivals)]
    assert got == pytest.approx([0, 1, 2, 3, 4])


def test_clock_uses_wall_time_when_times_are_absent_jump_or_step_back() -> None:
    clock = LiveClock()
    stamps = [(10.0, 0.0), (11.0, 1.0), (None, 2.0), (13.0, 3.0), (90000.0, 4.0), (90001.0, 5.0)]
    stamps += [(2.0, 6.0), (3.0, 7.0), (float("nan"), 8.0)]
    assert [clock.seconds(stamp, wall) for stamp, wall in stamps] == pytest.approx(range(9))


def test_clock_rises_across_reconnects_and_with_a_standing_wall_clock() -> None:
    clock = LiveClock()
    got = [clock.seconds(7.0 + index, 0.1 * index) for index in range(5)]
    clock.restart()
    got += [clock.seconds(7.0, 0.6), clock.seconds(7.0, 0.6), clock.seconds(None, 0.6)]
    assert np.all(np.diff(got) > 0)


def test_clock_follows_a_burst_after_a_silence() -> None:
    """HLS hands over ten seconds at once, then nothing for ten seconds."""
    clock = LiveClock()
    times = [index / 10 for index in range(200)]
    walls = [0.0] * 100 + [10.0] * 100
    got = [clock.seconds(stamp, wall) for stamp, wall in zip(times, walls, strict=True)]
    assert got == pytest.approx(times)


def test_mailbox_keeps_the_newest_and_counts_the_rest() -> None:
    box = Mailbox()
    for index in range(5):
        box.put(float(index), numbered(index))
    item = box.get()
    assert item is not None
    assert item[0] == 4.0
    assert box.dropped == 4
    box.put(5.0, numbered(5))
    box.end(RuntimeError("gone"))
    assert box.get() is not None
    with pytest.raises(RuntimeError, match="gone"):
        box.get()
    assert box.get() is None


@pytest.mark.parametrize(
    ("options", "field"),
    [({"attempts": -1}, "attempts"), ({"first_wait": -1.0}, "first_wait")],
)
def test_reconnect_is_checked(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"Reconnect.{field} must be"):
        Reconnect(**options)


def test_waits_double_up_to_the_longest() -> None:
    policy = Reconnect(first_wait=0.5, max_wait=3.0)
    assert [policy.wait(attempt) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert policy.wait(10**6) == 3.0


# a camera made of a function


def picture(index: int) -> Callable[[], Frame]:
    return lambda: numbered(index)


def test_a_slow_reader_gets_the_newest_frame_and_a_count() -> None:
    gate, done = threading.Event(), threading.Event()

    def connect(stopped: Callable[[], bool]) -> Iterator[tuple[None, Callable[[], Frame]]]:
        yield None, picture(0)
        gate.wait(PATIENCE)
        for index in range(1, 8):
            yield None, picture(index)
        done.set()
        while not stopped():
            time.sleep(0.01)

    with LiveSource("fake", connect, fps=None, reconnect=FAST) as frames:
        reading = iter(frames)
        assert number_of(next(reading)[1]) == 0
        gate.set()
        assert done.wait(PATIENCE)
        assert number_of(next(reading)[1]) == 7
        assert frames.dropped == 6
        assert frames.live
        assert frames.duration is None


def test_giving_up_after_the_allowed_attempts_names_the_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    visits = []

    def connect(stopped: Callable[[], bool]) -> Iterator[tuple[None, Callable[[], Frame]]]:
        visits.append(0)
        if len(visits) > 1:
            raise VideoError("fake: cannot be opened: cable cut")
        yield None, picture(0)

    frames = LiveSource("fake", connect, fps=None, reconnect=Reconnect(3, 0.001, 0.01))
    with pytest.raises(VideoError, match=r"3 attempts to reconnect failed: cannot be .* cable cut"):
        list(frames)
    assert len(visits) == 4
    assert "attempt 3" in caplog.text


def test_without_reconnect_the_end_is_the_end() -> None:
    def connect(stopped: Callable[[], bool]) -> Iterator[tuple[None, Callable[[], Frame]]]:
        yield None, picture(0)

    with LiveSource("fake", connect, fps=None, reconnect=Reconnect(attempts=0)) as frames:
        assert len(list(frames)) == 1


def test_an_unexpected_error_reaches_the_reader() -> None:
    def connect(stopped: Callable[[], bool]) -> Iterator[tuple[None, Callable[[], Frame]]]:
        yield None, picture(0)
        raise MemoryError("too much")

    with LiveSource("fake", connect, fps=None, reconnect=FAST) as frames:
        reading = iter(frames)
        next(reading)
        with pytest.raises(MemoryError):
            next(reading)


# webcams


def test_an_absent_webcam_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    for source in (77, "77", "/dev/video77"):
        with pytest.raises(VideoError, match=r"77: cannot be opened; check that the camera"):
            open_source(source)
    assert "Traceback" not in capfd.readouterr().err


def test_webcam_frames_are_rgb_and_unplugging_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    opened: list[Any] = []

    class Capture:
        def __init__(self, device: Any) -> None:
            opened.append(device)
            self.left = 5

        def isOpened(self) -> bool:
            return True

        def grab(self) -> bool:
            self.left -= 1
            time.sleep(0.002)
            return self.left >= 0

        def retrieve(self) -> tuple[bool, Any]:
            frame = np.zeros((48, 80, 3), np.uint8)
            frame[..., 2] = 200  # OpenCV's order is BGR: this is red
            return True, frame

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    with open_source(0, fps=None, reconnect=FAST) as frames:
        assert frames.name == "webcam 0"
        times = []
        for seconds, frame in frames:
            times.append(seconds)
            assert frame[0, 0].tolist() == [200, 0, 0]
            if frames.reconnects >= 2:  # type: ignore[attr-defined]
                break
    assert np.all(np.diff(times) > 0)
    assert opened[:3] == [0, 0, 0]


# HTTP


def test_mjpeg_camera_reconnects_and_never_shows_its_password(
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    # a frame's number says which connection it came over; a slow reader misses many of them
    with Camera(lambda handler, visit: camera.show(handler, 100 * min(visit, 9), 12)) as camera:
        address = f"http://admin:hunter2@127.0.0.1:{camera.port}/live?token=abc123"
        with open_source(address, fps=None, live=True, reconnect=FAST) as frames:
            seen, times = [], []
            for seconds, frame in frames:
                seen.append(number_of(frame) // 100)
                times.append(seconds)
                if seen[-1] >= 2:
                    break
            assert frames.reconnects >= 2  # type: ignore[attr-defined]
            assert frames.live
            for text in (frames.name, repr(frames), str(frames.warnings)):
                assert "hunter2" not in text
                assert "abc123" not in text
    assert seen == sorted(seen)
    assert np.all(np.diff(times) > 0)
    log = everything_logged.text
    assert any(record.name.startswith("libav") for record in everything_logged.records)
    assert "the connection was lost" in log
    assert "connected again" in log
    for secret in ("hunter2", "abc123", "YWRtaW46aHVudGVyMg"):
        assert secret not in log


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_refusals_say_why_and_show_no_password(
    everything_logged: pytest.LogCaptureFixture, status: int
) -> None:
    import traceback

    secrets = "admin:hunter" + "2", "token=abc" + "123"  # in pieces: tracebacks quote this file
    with (
        Camera(lambda handler, visit: handler.send_error(status)) as camera,
        pytest.raises(VideoError) as caught,
    ):
        open_source(f"http://{secrets[0]}@127.0.0.1:{camera.port}/live?{secrets[1]}")
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert str(status) in text or "5XX" in text
    for secret in ("hunter2", "abc123"):
        assert secret not in text
        assert secret not in everything_logged.text


def test_a_recording_on_a_web_server_is_read_in_full_like_a_file(tmp_path: Path) -> None:
    front = {"movflags": "faststart"}
    data = write_video(tmp_path / "a.mp4", steady(60), container_options=front).read_bytes()

    def answer(handler: Any, visit: int) -> None:
        first = int(handler.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        handler.send_response(206)
        handler.send_header("Content-Type", "video/mp4")
        handler.send_header("Content-Length", str(len(data) - first))
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[first:])

    with Camera(answer) as camera:
        address = f"http://127.0.0.1:{camera.port}/a.mp4"
        with open_source(address, fps=None) as frames:
            assert not frames.live
            assert [number_of(frame) for _, frame in frames] == list(range(60))
            assert frames.duration == pytest.approx(2.4, abs=0.05)
        assert frames.dropped == 0


def test_a_remote_playlist_opens_no_local_file(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "private.ts", steady(50))

    def answer(handler: Any, visit: int) -> None:
        text = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:2,\n"
        text += f"{clip.as_uri()}\n#EXT-X-ENDLIST\n"
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.apple.mpegurl")
        handler.end_headers()
        handler.wfile.write(text.encode())

    with Camera(answer) as camera, pytest.raises(VideoError):
        list(open_source(f"http://127.0.0.1:{camera.port}/a.m3u8"))


class Clock:
    """Stands in for the module `time`: it goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_live_playlist_is_played_in_real_time_and_drops_nothing(
    tmp_path: Path, given: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its segments come seconds at a time; frames are handed out when they are due."""
    clock = Clock()
    monkeypatch.setattr("mmkv.video.network.time", clock)
    parts = []
    for number in range(2):
        times = [1000 * number + time for time in steady(25)]
        frames = [numbered(25 * number + index) for index in range(25)]
        path = write_video(tmp_path / f"{number}.ts", times, frames=frames)
        parts.append(path.read_bytes())

    def answer(handler: Any, visit: int) -> None:
        handler.send_response(200)
        text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
        text += "#EXTINF:1,\n0.ts\n#EXTINF:1,\n1.ts\n"
        body = text.encode() if "m3u8" in handler.path else parts["1.ts" in handler.path]
        kind = "application/vnd.apple.mpegurl" if "m3u8" in handler.path else "video/mp2t"
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with (
        Camera(answer) as camera,
        open_source(f"http://127.0.0.1:{camera.port}/a.m3u8", fps=5.0, reconnect=FAST) as frames,
    ):
        assert frames.live
        until(lambda: given[-1][1] >= 40)
    assert set(np.diff([number for _, number in given])) <= {4, 5, 6}
    passed = 0.04 * (given[-1][1] - given[0][1])  # 25 frames are a second
    assert passed - 0.01 <= clock.now <= 2.0


def test_an_endless_transport_stream_is_live(
    tmp_path: Path, given: list[tuple[float, int]]
) -> None:
    data = write_video(tmp_path / "a.ts", steady(100)).read_bytes()

    def answer(handler: Any, visit: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        for at in range(0, len(data), 1880):
            handler.wfile.write(data[at : at + 1880])
            time.sleep(0.002)
        camera.stopping.wait()

    with (
        Camera(answer) as camera,
        open_source(f"http://127.0.0.1:{camera.port}/live", fps=2.0, reconnect=FAST) as frames,
    ):
        assert frames.live
        until(lambda: len(given) >= 2)
        (begin, first), (seconds, number) = given[:2]
        assert number - first >= 12
        assert seconds - begin >= 0.48
        assert next(iter(frames))[0] >= begin


def test_a_page_that_is_no_video(tmp_path: Path) -> None:
    def answer(handler: Any, visit: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<html>not here</html>" * 50)

    with (
        Camera(answer) as camera,
        pytest.raises(VideoError, match="cannot be opened as a video"),
    ):
        open_source(f"http://127.0.0.1:{camera.port}/", timeout=PATIENCE)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_says_nothing_is_given_up_on_in_time(scheme: str) -> None:
    with Mute() as mute:
        address = f"{scheme}://admin:hunter2@127.0.0.1:{mute.port}/live"
        with pytest.raises(VideoError, match=rf"{scheme}://\*\*\*@127.* no answer within 0.3 s"):
            by_itself(lambda: open_source(address, timeout=0.3))


def test_close_returns_at_once_while_the_network_hangs() -> None:
    def answer(handler: Any, visit: int) -> None:
        camera.show(handler, 0, 5)
        camera.stopping.wait()

    with Camera(answer) as camera:
        address = f"http://127.0.0.1:{camera.port}/live"
        frames = open_source(address, fps=None, live=True, timeout=10 * PATIENCE)
        seen: list[int] = []
        reader = threading.Thread(
            target=lambda: seen.extend(number_of(frame) for _, frame in frames)
        )
        reader.start()
        until(lambda: len(seen) > 0)
        time.sleep(0.2)  # into the silence
        by_itself(frames.close)
        finish(reader)
        frames.close()


def test_a_camera_that_falls_silent_is_reconnected_after_the_timeout() -> None:
    def answer(handler: Any, visit: int) -> None:
        camera.show(handler, 0, 5)
        camera.stopping.wait()

    def opened() -> Any:
        """The camera, or None where it was too slow for the timeout."""
        address = f"http://127.0.0.1:{camera.port}/live"
        with contextlib.suppress(VideoError):
            return open_source(address, fps=None, live=True, timeout=0.3, reconnect=FAST)

    with Camera(answer) as camera, until(opened) as frames:
        assert any(frames.reconnects for _ in frames)


def test_opencv_reads_addresses_too_and_shows_no_password(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Camera(lambda handler, visit: camera.show(handler, 0, None)) as camera:
        address = f"http://admin:hunter2@127.0.0.1:{camera.port}/live?token=abc123"
        with open_source(address, fps=None, reader="opencv") as frames:
            reading = iter(frames)
            first, second = next(reading), next(reading)
            assert number_of(second[1]) > number_of(first[1])
            assert second[0] > first[0]
    with pytest.raises(VideoError, match=r"http://\*\*\*@127"):
        open_source(address, reader="opencv", timeout=1.0)
    shown = capfd.readouterr()
    assert "hunter2" not in shown.err + shown.out
    assert "abc123" not in shown.err + shown.out


# RTSP


def test_rtsp_camera_with_password_is_read_and_reconnected(
    tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    stream = write_video(tmp_path / "a.ts", steady(50)).read_bytes()
    with RtspCamera(stream, "admin:hunter2") as camera:
        address = f"rtsp://admin:hunter2@127.0.0.1:{camera.port}/live?token=abc123"
        with open_source(address, fps=None, reconnect=FAST) as frames:
            assert frames.live
            times = []
            for seconds, frame in frames:
                times.append(seconds)
                assert number_of(frame) < 50
                if frames.reconnects >= 1 and len(times) > 10:  # type: ignore[attr-defined]
                    break
        assert np.all(np.diff(times) > 0)
        assert camera.plays >= 2
    for secret in ("hunter2", "abc123", "YWRtaW46aHVudGVyMg"):
        assert secret not in everything_logged.text


def test_rtsp_with_a_wrong_password(everything_logged: pytest.LogCaptureFixture) -> None:
    with (
        RtspCamera(b"", "admin:right") as camera,
        pytest.raises(VideoError, match=r"rtsp://\*\*\*@127.*401") as caught,
    ):
        open_source(f"rtsp://admin:hunter2@127.0.0.1:{camera.port}/live")
    assert "hunter2" not in str(caught.value) + everything_logged.text


def test_rtsp_refused_at_once() -> None:
    with pytest.raises(VideoError, match=r"rtsp://\*\*\*@127.0.0.1:1/x: .*refused"):
        open_source("rtsp://admin:hunter2@127.0.0.1:1/x")


@pytest.mark.parametrize("address", ["ftp://a:hunter2@cam/x", "smb://cam/x", "concat://x"])
def test_other_protocols_are_refused_with_the_list(address: str) -> None:
    with pytest.raises(VideoError, match="allowed are rtsp, rtsps, http") as caught:
        open_source(address)
    assert "hunter2" not in str(caught.value)


def test_decord_cannot_read_addresses() -> None:
    with pytest.raises(VideoError, match="decord reads local files only"):
        open_source("rtsp://cam/x", reader="decord")
