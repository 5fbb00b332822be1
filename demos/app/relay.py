"""A proxy on this machine that leads to one place only.

FFmpeg looks up the names of https hosts itself, and needs the name for TLS, so that it cannot be
given a number instead. A proxy is asked for the name: this one connects to the number that the name
had when it was checked, whatever it stands for by then.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HEAD = 8192  # bytes, at most, of what a connection begins with


class Relay:
    """A running proxy, from the start until `close`.

    Args:
        place: `name:port` that may be asked for.
        number: IP address that it leads to.
        port: port that it leads to.
        timeout: seconds for connecting.
    """

    def __init__(self, place: str, number: str, port: int, timeout: float) -> None:
        self._place = place
        self._to = (number, port)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="mmkv-relay", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What FFmpeg takes as its `http_proxy`."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

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
            place = f"connect {self._place}".lower()  # names have no case
            if self._asked(asking).lower() != place:
                asking.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            try:
                there = socket.create_connection(self._to, self._timeout)
            except OSError:
                asking.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            with self._held(there):
                for one in (asking, there):
                    one.settimeout(None)  # the readers at both ends know how long to wait
                asking.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=_pass_on, args=(there, asking), daemon=True)
                back.start()
                _pass_on(asking, there)
                back.join()

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
