"""The demo: network addresses are opened on the operator's hosts only, and lead nowhere else."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from video_servers import Camera, jpeg
from waiting import PATIENCE, finish, until

from mmkv.demos.app.hosts import AllowedHosts, Host
from mmkv.demos.app.pinned import open_address
from mmkv.demos.app.relay import Relay
from mmkv.models.tiny import SAMPLE_VIDEO
from mmkv.video import VideoError


def allowed(*hosts: str, number: str = "127.0.0.1") -> AllowedHosts:
    def resolve(name: str, port: int) -> Sequence[str]:
        return [number]

    return AllowedHosts(tuple(Host.parse(host) for host in hosts), resolve)


def mjpeg(handler: Any, visit: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
    handler.end_headers()
    for index in range(1000):
        picture = jpeg(index % 50)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        handler.wfile.write(head.encode() + picture + b"\r\n")
        if handler.server is None or threading.Event().wait(0.02):
            return


@pytest.mark.parametrize(
    "address",
    [
        "http://other.example/live",
        "http://cam.localhost.other.example/live",
        "http://cam.localhost@other.example/live",
        "http://other.example#@cam.localhost/live",
        "http://other.example\\@cam.localhost/live",
        "rtsp://127.0.0.1/live",
        "http://cam.localhost:22/",
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://cam.localhost/",
        "concat:http://cam.localhost/a|file:/etc/passwd",
        "http://cam.localhost:99999/",
        "http:///live",
        "",
    ],
)
def test_no_other_address_is_opened(address: str) -> None:
    with pytest.raises(VideoError):
        allowed("cam.localhost:8080").check(address)


def test_without_a_list_there_is_no_address_at_all() -> None:
    assert not AllowedHosts()
    with pytest.raises(VideoError):
        AllowedHosts().check("rtsp://cam.localhost/live")


@pytest.mark.parametrize(
    "address",
    ["rtsp://cam.localhost:8554/live", "http://CAM.localhost/x?y=1", "rtsp://u:p@cam.localhost/"],
)
def test_a_listed_host_without_a_port_takes_any(address: str) -> None:
    assert allowed("cam.localhost").check(address).hostname == "cam.localhost"


@pytest.mark.parametrize("text", ["", "*", "*.local", "a/b", "user@host", "host:port", "rtsp://x"])
def test_the_list_takes_hosts_only(text: str) -> None:
    with pytest.raises(ValueError, match="--allow-host"):
        Host.parse(text)


def test_the_name_is_looked_up_once_and_the_number_connected_to() -> None:
    pinned = allowed("cam.localhost", number="10.1.2.3").pin(
        "rtsp://me:secret@cam.localhost:8554/live?k=v"
    )
    with pinned.reached() as way:
        assert way.address.secret == f"rtsp://me:secret@{way.relay.place}/live?k=v"
        assert way.relay._to == ("10.1.2.3", 8554)
    assert str(pinned) == "rtsp://***@cam.localhost:8554/live?k=***"
    with_six = allowed("cam.localhost", number="fd00::7").pin("http://cam.localhost/live")
    with with_six.reached() as way:
        assert way.relay._to == ("fd00::7", 80)
        assert way.options["headers"] == "Host: cam.localhost\r\n"


@pytest.mark.parametrize(
    ("name", "number", "led"),
    [
        *(("cam.example", number, True) for number in ("127.0.0.1", "127.8.8.8", "::1", "0.0.0.0")),
        *(("cam.example", number, True) for number in ("169.254.169.254", "fe80::1%eth0", "::")),
        *(("cam.example", number, True) for number in ("224.0.0.1", "255.255.255.255", "ff02::1")),
        ("cam.example", "::ffff:127.0.0.1", True),
        ("localhost.cam.example", "127.0.0.1", True),
        ("mylocalhost.example", "127.0.0.1", True),
        ("cam.example", "10.0.0.7", False),
        ("cam.example", "fd00::7", False),
        ("localhost", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", False),
    ],
)
def test_a_name_does_not_lead_to_this_machine(name: str, number: str, led: bool) -> None:
    hosts = allowed(name, number=number)
    if led:
        with pytest.raises(VideoError, match=f"{name}: it leads to "):
            hosts.pin(f"rtsp://{name}/live")
    else:
        assert hosts.pin(f"rtsp://{name}/live").number == number


def test_a_camera_on_a_listed_host_is_watched() -> None:
    with Camera(mjpeg) as camera:
        pinned = allowed("cam.localhost").pin(f"http://cam.localhost:{camera.port}/live")
        with open_address(pinned, 5.0) as source:
            assert source.live
            assert next(iter(source))[1].ndim == 3
        assert {visit["Host"] for visit in camera.visits} == {f"cam.localhost:{camera.port}"}


def redirect(location: str) -> Any:
    def answer(handler: Any, visit: int) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def playlist(address: str) -> Any:
    def answer(handler: Any, visit: int) -> None:
        body = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n".encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.apple.mpegurl")
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("leads", [redirect, playlist])
def test_an_allowed_host_cannot_lead_to_another_place(leads: Any) -> None:
    with Camera(mjpeg) as target:
        elsewhere = f"http://127.0.0.1:{target.port}/secret.ts"
        with Camera(leads(elsewhere)) as camera:
            pinned = allowed("cam.localhost").pin(f"http://cam.localhost:{camera.port}/live.m3u8")
            with pytest.raises(VideoError):
                open_address(pinned, 1.0)
        assert target.visits == []


def rtsp_server(status: str) -> tuple[int, threading.Thread]:
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        connection.recv(4096)
        connection.sendall(f"{status}\r\nCSeq: 1\r\nLocation: rtsp://other/\r\n\r\n".encode())
        connection.close()
        listening.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return listening.getsockname()[1], thread


@pytest.mark.parametrize(
    ("status", "words"),
    [("RTSP/1.0 302 Moved", "leads to another address"), ("HTTP/1.1 200 OK", "not speak RTSP")],
)
def test_an_rtsp_server_that_sends_elsewhere_is_not_followed(status: str, words: str) -> None:
    port, thread = rtsp_server(status)
    pinned = allowed("cam.localhost").pin(f"rtsp://cam.localhost:{port}/live")
    with pytest.raises(VideoError, match=words):
        open_address(pinned, 1.0)
    finish(thread)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    names = [
        "-keyout",
        str(folder / "key"),
        "-out",
        str(folder / "cert"),
        "-subj",
        "/CN=cam.localhost",
    ]
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names]
    subprocess.run(making, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


@pytest.fixture
def asked(certificate: ssl.SSLContext) -> Iterator[list[str | None]]:
    """Names that TLS servers of the certificate were asked for."""
    names: list[str | None] = []
    certificate.sni_callback = lambda _socket, name, _context: names.append(name)
    yield names
    certificate.sni_callback = None


def no_relay() -> bool:
    return all(thread.name != "mmkv-relay" for thread in threading.enumerate())


# no such name is known to the system's resolver: only the number leads to the camera


def test_an_https_camera_is_reached_by_its_number_and_asked_by_its_name(
    certificate: ssl.SSLContext, asked: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with Camera(mjpeg, certificate) as camera:
        pinned = allowed("cam.localhost").pin(f"https://me:secret@cam.localhost:{camera.port}/live")
        with open_address(pinned, 5.0) as source:
            assert source.live
            assert next(iter(source))[1].ndim == 3
        assert {visit["Host"] for visit in camera.visits} == {f"cam.localhost:{camera.port}"}
        assert set(asked) == {"cam.localhost"}
    until(no_relay)


def test_an_https_name_in_capitals_is_the_same_host(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with Camera(mjpeg, certificate) as camera:
        pinned = allowed("cam.localhost").pin(f"https://Cam.Localhost:{camera.port}/live")
        with open_address(pinned, 5.0) as source:
            assert next(iter(source))[1].ndim == 3


def test_where_no_proxy_is_set_the_number_itself_is_connected_to(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "localhost,cam.localhost")
    with Camera(mjpeg, certificate) as camera:
        pinned = allowed("cam.localhost").pin(f"https://cam.localhost:{camera.port}/live")
        with open_address(pinned, 5.0) as source:
            assert next(iter(source))[1].ndim == 3
        assert {visit["Host"] for visit in camera.visits} == {f"cam.localhost:{camera.port}"}


def test_a_recording_on_an_https_server_is_read_to_its_end(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)

    def file(handler: Any, visit: int) -> None:
        data = SAMPLE_VIDEO.read_bytes()
        first = int(handler.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        handler.send_response(206)
        handler.send_header("Content-Type", "video/mp4")
        handler.send_header("Content-Length", str(len(data) - first))
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[first:])

    with Camera(file, certificate) as server:
        pinned = allowed("cam.localhost").pin(f"https://cam.localhost:{server.port}/a.mp4")
        with open_address(pinned, 0.1) as source:
            assert not source.live
            assert len(list(source)) == 15
    until(no_relay)


def test_an_https_host_that_is_not_there_is_said_in_words(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(VideoError, match=r"cam\.localhost:\d+/live: cannot be opened"):
        open_address(allowed("cam.localhost").pin(f"https://cam.localhost:{port}/live"), 1.0)


def test_a_relay_leads_to_its_own_place_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        there.setblocking(False)
        with Relay("cam.localhost:443", "127.0.0.1", there.getsockname()[1], PATIENCE) as relay:
            port = int(relay.address.rpartition(":")[2])
            for place in ("cam.localhost:22", "other.local:443", "127.0.0.1:443"):
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as asking:
                    asking.sendall(f"CONNECT {place} HTTP/1.1\r\n\r\n".encode())
                    assert asking.recv(99).startswith(b"HTTP/1.1 403")
        with pytest.raises(BlockingIOError):
            there.accept()


def test_a_relay_that_was_closed_leaves_nothing_behind() -> None:
    relay = Relay("cam.localhost:443", "127.0.0.1", 443, PATIENCE)
    port = int(relay.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as asking:
        asking.sendall(b"CONNECT cam")  # and no more
        until(lambda: relay._open)
        relay.close()
        assert asking.recv(99) == b""
    assert no_relay()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)
    relay.close()  # again
