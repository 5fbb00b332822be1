"""An RTSP server on 127.0.0.1 that gives odd answers, and places that count who comes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from video_servers import RtspCamera


class Elsewhere:
    """A place that nobody should come to, over TCP or UDP; `visitors` counts who came."""

    def __init__(self) -> None:
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        for one in (self._tcp, self._udp):
            one.setblocking(False)

    @property
    def visitors(self) -> int:
        """How many came so far; connections that nobody accepted yet are counted too."""
        found = 0
        for take in (self._tcp.accept, lambda: self._udp.recvfrom(9)):
            try:
                take()
                found += 1
            except BlockingIOError:
                pass
        return found

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *reason: object) -> None:
        self._tcp.close()
        self._udp.close()


class Odd(RtspCamera):
    """A camera that needs no password and gives some answers of its own.

    `odd` has status lines, fields and bodies by method; `asked` lists the methods that came.
    """

    def __init__(self, stream: bytes, odd: Mapping[str, tuple[str, str, str]]) -> None:
        self._odd = odd
        self.asked: list[str] = []
        super().__init__(stream, "nobody:0")

    def _answer(self, connection: socket.socket, lines: Any) -> bool:
        method, cseq = lines.readline().decode().split(" ")[0], ""
        while (line := lines.readline().decode().strip()) != "":
            if line.lower().startswith("cseq:"):
                cseq = line.partition(":")[2].strip()
        if not method:
            return False
        self.asked.append(method)
        status, more, body = self._odd.get(method, USUAL.get(method, ("200 OK", "", "")))
        if body:
            more += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        answer = f"RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{more}\r\n{body}"
        connection.sendall(answer.encode())
        if method == "PLAY" and status.startswith("2"):
            self._play(connection)
        return method != "TEARDOWN"


SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 33\r\na=control:{}\r\n"
)
USUAL = {
    "OPTIONS": ("200 OK", "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
    "DESCRIBE": ("200 OK", "", SDP.format("track1")),
    "SETUP": ("200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
    "PLAY": ("200 OK", "Session: 1\r\n", ""),
}
