"""A network address whose host was looked up once: opened there, and nowhere else."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlunsplit

from mmkv.demos.app.files import FORMATS, MAX_SIDE
from mmkv.demos.app.relay import Relay
from mmkv.video import Frame, FrameSource, Reconnect, VideoError, redact
from mmkv.video.container import open_container
from mmkv.video.live import LiveSource
from mmkv.video.network import clean_logs, connect_network
from mmkv.video.pyav_file import Job, PyAvFile
from mmkv.video.recording import LOOK_SECONDS, Kind, kind_of
from mmkv.video.redact import Address

TIMEOUT = 10.0  # seconds
PROTOCOLS = "http,https,httpproxy,tcp,tls,rtsp,rtp,udp"


@dataclass(frozen=True, slots=True)
class Pinned:
    """An address whose host was looked up.

    Attributes:
        parts: of the address as it was typed.
        number: the host's IP address at that time.
        port: to connect to.
    """

    parts: SplitResult
    number: str
    port: int

    def __str__(self) -> str:
        return redact(urlunsplit(self.parts))

    @property
    def address(self) -> Address:
        """What to connect to: the number in place of the name, except where TLS needs the name."""
        if self._by_name:
            return Address(urlunsplit(self.parts))
        user, at, _ = self.parts.netloc.rpartition("@")
        number = f"[{self.number}]" if ":" in self.number else self.number
        return Address(urlunsplit(self.parts._replace(netloc=f"{user}{at}{number}:{self.port}")))

    @property
    def options(self) -> dict[str, str]:
        """Options of FFmpeg that keep it from following anything to another place."""
        if self.parts.scheme == "rtsp":
            return {"format_whitelist": "rtsp", "rtsp_transport": "tcp"}
        host = self.parts.netloc.rpartition("@")[2]
        given = {
            "format_whitelist": FORMATS,
            "max_redirects": "0",
            "headers": f"Host: {host}\r\n",
        }
        if self.parts.scheme == "https":
            given["verifyhost"] = str(self.parts.hostname)
        return given

    @contextmanager
    def reached(self) -> Iterator[dict[str, str]]:
        """Run a relay that leads an https name to its number, where one is needed.

        Yields:
            `options`, with the relay where there is one.
        """
        if not self._by_name:
            yield self.options
            return
        place = f"{self.parts.hostname}:{self.port}"
        with Relay(place, self.number, self.port, TIMEOUT) as relay:
            yield {**self.options, "http_proxy": relay.address}

    @property
    def _by_name(self) -> bool:
        """Whether a relay is asked for the name, so that TLS sends it: servers with several names
        need that (SNI). Where no_proxy is set, FFmpeg might bypass the relay: then the number is
        used.
        """
        named = ":" not in str(self.parts.hostname) and self.parts.hostname != self.number
        return self.parts.scheme == "https" and named and not os.environ.get("no_proxy")


class Recording(PyAvFile):
    """A recording on a web server.

    Args:
        pinned: where it is.
        fps: frames per second to choose.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, pinned: Pinned, fps: float) -> None:
        self._way = ExitStack()
        options = self._way.enter_context(pinned.reached())
        limits = (TIMEOUT, TIMEOUT)
        super().__init__(
            Job(pinned.address, str(pinned), fps, MAX_SIDE, PROTOCOLS, options, limits)
        )

    def close(self) -> None:
        """Stop reading, and end the relay."""
        super().close()
        self._way.close()


def open_address(pinned: Pinned, fps: float) -> FrameSource:
    """Open a camera, or a recording on a web server.

    Args:
        pinned: where it is.
        fps: frames per second to choose.

    Raises:
        VideoError: it cannot be opened, or leads elsewhere.
    """
    name, address = str(pinned), pinned.address
    kind = Kind.LIVE
    if pinned.parts.scheme == "rtsp":
        refuse_redirect(pinned)
    else:
        begun = time.monotonic()
        limits = (TIMEOUT, min(TIMEOUT, LOOK_SECONDS))
        with (
            pinned.reached() as options,
            clean_logs(address),
            open_container(
                address, name, protocols=PROTOCOLS, options=options, timeout=limits
            ) as container,
        ):
            kind = kind_of(container, begun)
        if kind is Kind.RECORDING:
            return Recording(pinned, fps)

    def connect(
        stopped: Callable[[], bool],
    ) -> Iterator[tuple[float | None, Callable[[], Frame]]]:
        with pinned.reached() as options:
            yield from connect_network(address, TIMEOUT, MAX_SIDE, options)(stopped)

    return LiveSource(
        name, connect, fps=fps, reconnect=Reconnect(attempts=5), ends=kind is Kind.OPEN
    )


def refuse_redirect(pinned: Pinned) -> None:
    """Ask an RTSP server for the stream once, because FFmpeg would follow it to any other server.

    Raises:
        VideoError: it cannot be reached, or redirects elsewhere.
    """
    path = urlunsplit(pinned.parts._replace(netloc=pinned.parts.netloc.rpartition("@")[2]))
    asked = f"DESCRIBE {path} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    try:
        with socket.create_connection((pinned.number, pinned.port), TIMEOUT) as connection:
            connection.sendall(asked.encode())
            status = connection.recv(64).split()
    except (OSError, UnicodeError):
        raise VideoError(f"{pinned}: the host does not answer") from None
    if len(status) < 2 or not status[0].startswith(b"RTSP/"):
        raise VideoError(f"{pinned}: the host does not speak RTSP")
    if status[1].startswith(b"3"):
        raise VideoError(f"{pinned}: it leads to another address, which is not followed")
