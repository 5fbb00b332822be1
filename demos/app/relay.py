"""A way through this machine that leads to one place only: the one that was checked.

FFmpeg follows servers that send it elsewhere, so that it is never given a server's own address, but
a relay's: this connects to the number that the server's name had when it was checked, whatever the
name stands for by then, and passes on no answer that leads to another place.

What https servers answer cannot be read on the way, and FFmpeg needs their names for TLS: there the
relay is a proxy, which FFmpeg asks for each place it wants to reach, and which refuses all others.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mmkv.demos.app.answers import ELSEWHERE, Answers, Refusal

_HEAD = 8192  # bytes, at most, of what a connection begins with


class Relay:
    """A running relay, from the start until `close`.

    Args:
        place: `name:port` that a proxy may be asked for.
        number: IP address that it leads to.
        port: port that it leads to.
        timeout: seconds for connecting.
        answers: passes on what the server answers; None for a proxy, which passes on everything.

    Attributes:
        why: why a connection was refused, if one was; else "".
    """

    def __init__(
        self, place: str, number: str, port: int, timeout: float, answers: Answers | None = None
    ) -> None:
        self.why = ""
        self._place = place
        self._answers = answers
        self._to = (number, port)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="mmkv-relay", daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        """Where it listens, as `number:port`."""
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    @property
    def address(self) -> str:
        """What FFmpeg takes as its `http_proxy`."""
        return f"http://{self.place}"

    def close(self) -> None:
        """End every connection."""
        with self._lock:
            self._closed = True
            held = list(self._open)
        for one in held:
            _end(one)
        with suppress(OSError):  # wakes `accept`, which closing its socket does not do everywhere
            socket.create_connection(self._listening.getsockname(), 1.0).close()
        self._thread.join(1.0)
        self._listening.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                asking = self._listening.accept()[0]
            except OSError:  # closed
                return
            if self._closed:
                asking.close()
                return
            threading.Thread(target=self._serve, args=(asking,), daemon=True).start()

    def _serve(self, asking: socket.socket) -> None:
        with suppress(OSError), self._held(asking):
            asking.settimeout(self._timeout)
            if self._answers is None and not self._may_pass(asking):
                return
            try:
                there = socket.create_connection(self._to, self._timeout)
            except OSError:
                self.why = "the host does not answer"
                if self._answers is None:
                    asking.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            with self._held(there):
                for one in (asking, there):
                    one.settimeout(None)  # the readers at both ends know how long to wait
                if self._answers is None:
                    asking.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._pass_back, args=(there, asking), daemon=True)
                back.start()
                _pass_on(asking, there)
                back.join()

    def _may_pass(self, asking: socket.socket) -> bool:
        """Whether a proxy is asked for its place."""
        if self._asked(asking).lower() == f"connect {self._place}".lower():  # names have no case
            return True
        self.why = ELSEWHERE
        asking.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        return False

    def _pass_back(self, there: socket.socket, asking: socket.socket) -> None:
        """Pass on what the server answers, as far as that is allowed."""
        if self._answers is None:
            _pass_on(there, asking)
            return
        with suppress(OSError), there.makefile("rb") as reading:
            try:
                for data in self._answers(reading):
                    asking.sendall(data)
            except Refusal as refusal:
                self.why = str(refusal)
        _end(asking)
        _end(there)

    @contextmanager
    def _held(self, connection: socket.socket) -> Iterator[None]:
        """A connection that is closed at the end, or by `close`."""
        with connection:
            with self._lock:
                if self._closed:
                    raise ConnectionAbortedError
                self._open.add(connection)
            try:
                yield
            finally:
                with self._lock:
                    self._open.discard(connection)

    @staticmethod
    def _asked(asking: socket.socket) -> str:
        """The first two words of a request's head, read to its end."""
        head = b""
        while not head.endswith(b"\r\n\r\n") and len(head) < _HEAD:
            piece = asking.recv(_HEAD)  # nothing follows before it is answered
            if not piece:
                break
            head += piece
        return " ".join(head.decode("latin-1").split(" ")[:2])


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Pass all bytes from one to the other, and the end too."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _end(target)


def _end(connection: socket.socket) -> None:
    """Wake whoever is waiting for it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
