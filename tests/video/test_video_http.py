"""What an address on a web server is: a recording, which is read in full, or a live stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from video_files import number_of, steady, write_video
from video_servers import Camera
from waiting import by_itself

from mmkv.video import Reconnect, open_source
from mmkv.video.live import LiveSource

FAST = Reconnect(first_wait=0.02, max_wait=0.1)
COUNT = 60


def ranges(data: bytes) -> Callable[[Any, int], None]:
    """A server that knows the length and gives any part."""

    def answer(handler: Any, visit: int) -> None:
        first = int(handler.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        handler.send_response(206)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(len(data) - first))
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[first:])

    return answer


def whole(data: bytes) -> Callable[[Any, int], None]:
    """A server that knows the length and always gives everything."""

    def answer(handler: Any, visit: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def chunked(data: bytes) -> Callable[[Any, int], None]:
    """A server that does not say the length."""

    def answer(handler: Any, visit: int) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))

    return answer


def closing(data: bytes) -> Callable[[Any, int], None]:
    """A server that says the length by closing the connection."""

    def answer(handler: Any, visit: int) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def slowly(data: bytes, seconds: float) -> Callable[[Any, int], None]:
    """A server that gives its data in real time and then closes the connection."""

    def answer(handler: Any, visit: int) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        parts = max(1, int(seconds / 0.02))
        for part in range(parts):
            begin, end = len(data) * part // parts, len(data) * (part + 1) // parts
            handler.wfile.write(data[begin:end])
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize("server", [ranges, whole, chunked, closing])
@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.ts", "libx264", "yuv420p", {}),
        ("a.mkv", "libx264", "yuv420p", {"live": "1"}),
        ("a.webm", "libvpx", "yuv420p", {"live": "1"}),
        ("a.gif", "gif", "rgb8", {}),
        ("a.flv", "flv1", "yuv420p", {"flvflags": "no_duration_filesize"}),
        ("a.mp4", "libx264", "yuv420p", {"movflags": "empty_moov+frag_keyframe"}),
    ],
)
def test_a_recording_without_a_declared_duration_is_read_like_the_file(
    tmp_path: Path,
    server: Callable[[bytes], Callable[[Any, int], None]],
    name: str,
    codec: str,
    pixels: str,
    options: dict[str, str],
) -> None:
    """Siblings: TS, MKV and browsers' WebM without duration, GIF, FLV, fragmented MP4; a server
    with ranges, without them, chunked, and one that just closes the connection."""
    path = write_video(
        tmp_path / name, steady(COUNT, 10), codec=codec, pixels=pixels, container_options=options
    )
    with open_source(path, fps=5.0) as frames:
        want = [(round(seconds, 3), number_of(frame)) for seconds, frame in frames]
    assert len(want) >= COUNT / 2 - 1
    with Camera(server(path.read_bytes())) as camera:
        with open_source(f"http://127.0.0.1:{camera.port}/{name}", fps=5.0) as frames:
            assert not frames.live
            got: list[tuple[float, int]] = []
            by_itself(lambda: got.extend((round(at, 3), number_of(one)) for at, one in frames))
        assert frames.duration == pytest.approx(COUNT / 10, abs=0.2)
    assert got == want


def test_a_live_stream_that_ends_by_itself_is_over(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts", steady(60, 20), options={"g": "5"}).read_bytes()
    with Camera(slowly(data, 3.0)) as camera:
        address = f"http://127.0.0.1:{camera.port}/live"
        with open_source(address, fps=None, reconnect=FAST) as frames:
            assert frames.live
            seen: list[float] = []
            by_itself(lambda: seen.extend(seconds for seconds, _ in frames))
            assert len(seen) > 10
            assert isinstance(frames, LiveSource)
            assert frames.reconnects == 0


def test_live_and_no_live_decide_what_the_server_does_not_say(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts", steady(40, 20)).read_bytes()
    with Camera(whole(data)) as camera:
        address = f"http://127.0.0.1:{camera.port}/a.ts"
        with open_source(address, fps=None, live=True, reconnect=FAST) as frames:
            assert frames.live
            assert any(frames.reconnects for _ in frames)  # type: ignore[attr-defined]
    with Camera(slowly(data, 2.5)) as camera:
        address = f"http://127.0.0.1:{camera.port}/a.ts"
        with open_source(address, fps=None, live=False) as frames:
            assert not frames.live
            assert [number_of(frame) for _, frame in frames] == list(range(40))


def test_a_camera_of_jpegs_is_live_whatever_length_it_declares() -> None:
    with Camera(lambda handler, visit: camera.show(handler, 0, 30)) as camera:
        address = f"http://127.0.0.1:{camera.port}/live"
        with open_source(address, fps=None, reconnect=FAST) as frames:
            assert frames.live
            assert any(frames.reconnects for _ in frames)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ended", [True, False])
def test_a_playlist_with_an_end_is_a_recording(tmp_path: Path, ended: bool) -> None:
    """HLS: `#EXT-X-ENDLIST`. Its parts may come from two recordings: each has its own clock."""
    part = write_video(tmp_path / "a.ts", steady(20, 10)).read_bytes()
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n"
    text += "#EXTINF:2,\n0.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2,\n1.ts\n"
    text += "#EXT-X-ENDLIST\n" if ended else ""

    def answer(handler: Any, visit: int) -> None:
        playlist = "m3u8" in handler.path
        body = text.encode() if playlist else part
        kind = "application/vnd.apple.mpegurl" if playlist else "video/mp2t"
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with Camera(answer) as camera:
        address = f"http://127.0.0.1:{camera.port}/a.m3u8"
        with open_source(address, fps=None, reconnect=FAST) as frames:
            assert frames.live is not ended
            if ended:
                assert frames.duration == 4.0
                got = [(seconds, number_of(frame)) for seconds, frame in frames]
                assert [number for _, number in got] == [*range(20)] * 2
                assert got[-1][0] == pytest.approx(3.9, abs=0.2)
