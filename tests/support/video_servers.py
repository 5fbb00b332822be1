"""Small cameras on 127.0.0.1 for the tests of live sources."""

from __future__ import annotations

import base64
import io
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image
from video_files import numbered


def jpeg(index: int) -> bytes:
    """Frame `index` of `numbered` as JPEG."""
    data = io.BytesIO()
    Image.fromarray(numbered(index)).save(data, "JPEG", quality=90)
    return data.getvalue()


class Camera:
    """An HTTP server whose answers a function writes.

    `answer(handler, visit)` runs in the server's thread for each connection, visits counted
    from 0. `stopping` is set when the camera is closed; answers that go on must look at it.
    With `tls` it speaks https.
    """

    def __init__(
        self, answer: Callable[[Any, int], None], tls: ssl.SSLContext | None = None
    ) -> None:
        self.stopping = threading.Event()
        self.visits: list[dict[str, str]] = []
        camera = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                camera.visits.append(dict(self.headers))
                try:
                    answer(self, len(camera.visits) - 1)
                except OSError:
                    return

            def log_message(self, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def show(self, handler: Any, first: int, count: int | None, interval: float = 0.02) -> None:
        """Answer with MJPEG frames from `first` on, `count` of them or until closed."""
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        index = first
        while (count is None or index < first + count) and not self.stopping.wait(interval):
            image = jpeg(index % 1024)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
            handler.wfile.write(head.encode() + image + b"\r\n")
            index += 1


class Mute:
    """A server that accepts connections and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                self._accepted.append(self._socket.accept()[0])
        except OSError:
            return

    def __enter__(self) -> Mute:
        return self

    def __exit__(self, *reason: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in self._accepted:
            one.close()


class RtspCamera:
    """The least of RTSP: Basic authentication, MPEG-TS in RTP, interleaved in the connection.

    Each connection is shown the file `stream` once, in real time or faster, and is then closed.
    """

    def __init__(self, stream: bytes, user: str, interval: float = 0.004) -> None:
        self._stream = stream
        self._proof = "Basic " + base64.b64encode(user.encode()).decode()
        self._interval = interval
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.plays = 0
        self.refused = 0
        self.stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                connection = self._socket.accept()[0]
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()
        except OSError:
            return

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                while self._answer(connection, lines):
                    pass
            except OSError:
                return

    def _answer(self, connection: socket.socket, lines: Any) -> bool:
        request = lines.readline().decode()
        headers: dict[str, str] = {}
        while (line := lines.readline().decode().strip()) != "":
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        if not request:
            return False
        method = request.split()[0]
        status, more, body = "200 OK", "", ""
        if method == "OPTIONS":
            more = "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif headers.get("authorization") != self._proof:
            self.refused += 1
            status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
        elif method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
            body += "m=video 0 RTP/AVP 33\r\na=control:track1\r\n"
            more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            more = "Session: 1\r\n"
        answer = f"RTSP/1.0 {status}\r\nCSeq: {headers['cseq']}\r\n{more}\r\n{body}"
        connection.sendall(answer.encode())
        if method == "PLAY":
            self.plays += 1
            self._play(connection)
        return method not in ("PLAY", "TEARDOWN")

    def _play(self, connection: socket.socket) -> None:
        size = 7 * 188
        for number, at in enumerate(range(0, len(self._stream), size)):
            if self.stopping.wait(self._interval):
                return
            load = self._stream[at : at + size]
            head = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, number * 3000, 1)
            connection.sendall(struct.pack(">cBH", b"$", 0, 12 + len(load)) + head + load)

    def __enter__(self) -> RtspCamera:
        return self

    def __exit__(self, *reason: object) -> None:
        self.stopping.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
