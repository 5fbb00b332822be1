"""The demo: an allowed server that tries to lead FFmpeg to other places.

The kind: FFmpeg dials an address that nobody checked. Found with a 302 to OPTIONS, which FFmpeg
follows. Siblings tried here: any 3xx to OPTIONS, DESCRIBE, SETUP and PLAY; a REDIRECT of the
server's own; UDP in place of the connection, with a source and a destination; tracks and bases at
other hosts; a 3xx to the second DESCRIBE; over HTTP, a 3xx at once and when reconnecting; playlists
(HLS, DASH, SDP, concat, ASX) that name other hosts, whatever they call themselves. https
hosts are tried in `test_demo_hosts`.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from rtsp_servers import SDP, Elsewhere, Odd
from video_files import numbered
from video_servers import Camera
from waiting import until

from mmkv.demos.app.answers import Refusal, http, rtsp
from mmkv.demos.app.hosts import AllowedHosts, Host
from mmkv.demos.app.pinned import Pinned, open_address
from mmkv.video import VideoError


def pinned(address: str) -> Pinned:
    def resolve(name: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    return AllowedHosts((Host("cam.localhost", None),), resolve).pin(address)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Some seconds of MPEG-TS."""
    path: Path = tmp_path_factory.mktemp("stream") / "a.ts"
    with av.open(str(path), "w") as out:
        track = out.add_stream("mpeg2video", rate=25)
        track.width, track.height, track.pix_fmt = 64, 64, "yuv420p"
        for index in range(75):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            out.mux(track.encode(frame.reformat(64, 64)))
        out.mux(track.encode(None))
    return path.read_bytes()


def watched(port: int, frames: int = 1) -> int:
    """How many frames a camera shows before it ends or is refused."""
    count = 0
    with open_address(pinned(f"rtsp://cam.localhost:{port}/live"), 5.0) as source:
        for _ in source:
            count += 1
            if count == frames:
                break
    return count


def test_a_camera_is_watched_through_the_relay(stream: bytes) -> None:
    with Odd(stream, {}) as camera:
        assert watched(camera.port) == 1
        assert camera.asked[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "305 Use Proxy", "399 Odd"])
@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
def test_no_redirect_is_followed(stream: bytes, method: str, status: str) -> None:
    with Elsewhere() as other:
        more = f"Location: rtsp://127.0.0.1:{other.port}/live\r\n"
        with (
            Odd(stream, {method: (status, more, "")}) as camera,
            pytest.raises(VideoError, match=r"cam\.localhost:\d+/live: .*leads to another address"),
        ):
            watched(camera.port)
        assert camera.asked[-1] == method
        assert other.visitors == 0


@pytest.mark.parametrize("more", ["source=127.0.0.1", "destination=127.0.0.1", "client_port=1-2"])
@pytest.mark.parametrize("way", ["RTP/AVP;unicast", "RTP/AVP/UDP;unicast", "RTP/AVP;multicast"])
def test_a_server_cannot_choose_udp(stream: bytes, way: str, more: str) -> None:
    with Elsewhere() as other:
        ports = f"server_port={other.port}-{other.port};port={other.port}-{other.port}"
        transport = f"Transport: {way};{more};{ports}\r\nSession: 1\r\n"
        with Odd(stream, {"SETUP": ("200 OK", transport, "")}) as camera, pytest.raises(VideoError):
            watched(camera.port)
        assert other.visitors == 0


def test_tracks_and_bases_at_other_hosts_are_asked_for_here(stream: bytes) -> None:
    with Elsewhere() as other:
        place = f"rtsp://127.0.0.1:{other.port}/live"
        told = ("200 OK", f"Content-Base: {place}/\r\n", SDP.format(f"{place}/track1"))
        with Odd(stream, {"DESCRIBE": told}) as camera:
            assert watched(camera.port) == 1
        assert other.visitors == 0


def test_the_second_describe_is_not_trusted_for_the_first(stream: bytes) -> None:
    with Elsewhere() as other:
        odd: dict[str, tuple[str, str, str]] = {}
        moved = ("302 Found", f"Location: rtsp://127.0.0.1:{other.port}/\r\n", "")
        with Odd(stream, odd) as camera:
            with open_address(pinned(f"rtsp://cam.localhost:{camera.port}/live"), 5.0) as source:
                assert next(iter(source))
                odd["DESCRIBE"] = moved  # for whoever reconnects
                until(lambda: camera.asked.count("DESCRIBE") > 1, 30)
            with pytest.raises(VideoError, match="leads to another address"):
                watched(camera.port)
        assert other.visitors == 0


def passed(answers: Callable[[Any], Any], *sent: bytes) -> bytes:
    """What is passed on of what a server sends."""
    return b"".join(answers(io.BufferedReader(io.BytesIO(b"".join(sent)))))


OK = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n"
PACKET = b"$\x00\x00\x0c" + b"RTSP/1.0 302"


def test_packets_between_messages_are_no_messages() -> None:
    sent = OK + b"\r\n" + PACKET + PACKET + OK + b"\r\n"
    assert passed(rtsp, sent) == sent


def test_a_body_is_passed_on_whole_and_is_no_message() -> None:
    body = b"RTSP/1.0 302 Found\r\n\r\n"
    sent = OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body + OK + b"\r\n"
    assert passed(rtsp, sent) == sent


@pytest.mark.parametrize(
    "sent",
    [
        b"RTSP/1.0 302 Found\r\nLocation: rtsp://other/\r\n\r\n",
        b"\r\n\nRTSP/1.0 302 Found\n\n",
        b"REDIRECT rtsp://cam/ RTSP/1.0\r\nLocation: rtsp://other/\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\nRTSP/1.0 301 Moved\r\n\r\n",
        PACKET + b"RTSP/1.0 302 Found\r\n\r\n",
        b"RTSP/1.0  302 Found\r\n\r\n",
        b"RTSP/2.0 302 Found\r\n\r\n",
        b"RTSP/1.0\t302 Found\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1e3\r\n\r\n",
        OK + b"Content-Length: 99999999\r\n\r\n",
        b"no message at all" * 9000,
    ],
)
def test_what_is_unclear_or_leads_elsewhere_is_refused(sent: bytes) -> None:
    with pytest.raises(Refusal):
        passed(rtsp, sent)


def test_what_is_no_field_or_packet_is_left_out() -> None:
    odd = (
        b" folded: 1\r\n$\x00\x00\x00\r\nno field\r\nLocation: rtsp://other/\r\nSession: 1\r\n\r\n"
    )
    assert passed(rtsp, OK + odd) == OK + b"Session: 1\r\n\r\n"
    assert passed(rtsp, b"$\x00\x00\x04RTSP" + OK + b"\r\n") == OK + b"\r\n"
    assert passed(rtsp, b"$\x00\xff\xffcut off") == b""


@pytest.mark.parametrize(
    "sent",
    [
        *(
            b"HTTP/1.1 %d Moved\r\nLocation: http://other/\r\n\r\n" % s
            for s in (300, 301, 302, 308)
        ),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1  302 Found\r\n\r\n",
        b"HTTP/2 302\r\n\r\n",
        b"ICY 302\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
def test_over_http_too(sent: bytes) -> None:
    with pytest.raises(Refusal):
        passed(http, sent)


def test_http_answers_lose_only_what_leads_elsewhere() -> None:
    sent = (
        b"HTTP/1.1 200 OK\r\nLocation: http://other/\r\nContent-Type: video/mp4\r\n\r\nHTTP/1.1 302"
    )
    told = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nConnection: close\r\n\r\nHTTP/1.1 302"
    assert passed(http, sent) == told


def playlists(place: str) -> dict[str, str]:
    """Playlists that lead to `place`, by media type."""
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{place}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'mediaPresentationDuration="PT2S"><Period><BaseURL>{place}</BaseURL>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="a" bandwidth="1"/>'
        "</AdaptationSet></Period></MPD>"
    )
    sdp = f"v=0\nm=video {place.rpartition(':')[2].partition('/')[0]} RTP/AVP 33\n"
    return {
        "application/vnd.apple.mpegurl": hls,
        "application/dash+xml": dash,
        "application/sdp": sdp,
        "text/plain": f"ffconcat version 1.0\nfile {place}\n",
        "video/x-ms-asf": f'<asx version="3.0"><entry><ref href="{place}"/></entry></asx>',
    }


@pytest.mark.parametrize("kind", list(playlists("")))
@pytest.mark.parametrize("called", [None, "video/mp4"])
def test_a_playlist_leads_nowhere(kind: str, called: str | None) -> None:
    with Elsewhere() as other:
        body = playlists(f"http://127.0.0.1:{other.port}/a.ts")[kind].encode()

        def answer(handler: Any, visit: int) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", called or kind)
            handler.end_headers()
            handler.wfile.write(body)

        with Camera(answer) as camera, pytest.raises(VideoError):
            open_address(pinned(f"http://cam.localhost:{camera.port}/live"), 5.0)
        assert other.visitors == 0


def test_a_redirect_on_reconnecting_is_not_followed() -> None:
    asked = threading.Event()
    with Elsewhere() as other:

        def answer(handler: Any, visit: int) -> None:
            if visit < 2:  # looking what it is, and watching
                camera.show(handler, 0, 30)
                return
            handler.send_response(302)
            handler.send_header("Location", f"http://127.0.0.1:{other.port}/")
            handler.end_headers()
            asked.set()

        with (
            Camera(answer) as camera,
            open_address(pinned(f"http://cam.localhost:{camera.port}/live"), 5.0) as source,
        ):
            reading = threading.Thread(target=lambda: [None for _ in source], daemon=True)
            reading.start()
            until(asked.is_set)
        assert other.visitors == 0
