"""Network addresses that visitors may type: only on hosts that the operator listed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import SplitResult, urlsplit, urlunsplit

from mmkv.demos.app.files import FORMATS, MAX_SIDE
from mmkv.video import FrameSource, Reconnect, VideoError, redact
from mmkv.video.redact import Address

PORTS = {"rtsp": 554, "http": 80, "https": 443}
TIMEOUT = 10.0  # seconds
PROTOCOLS = "http,https,tcp,tls,rtsp,rtp,udp"
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Host:
    """A listed host. port: the only one allowed, None for any."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Host:
        """From `camera.local`, `10.0.0.7:8554` or `[fd00::7]:554`.

        Raises:
            ValueError: it is none of these.
        """
        try:
            parts = urlsplit(f"//{text}")
            name, port = parts.hostname, parts.port
        except ValueError:
            name, port = None, None
        if not name or parts.path or parts.query or parts.username or "*" in name:
            raise ValueError(
                f"--allow-host {text!r} is not a host; write camera.local or 10.0.0.7:8554"
            )
        return cls(name.lower().rstrip("."), port)

    def __str__(self) -> str:
        return self.name if self.port is None else f"{self.name}:{self.port}"


def resolved(name: str, port: int) -> Sequence[str]:
    """The host's addresses as the system resolves them."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The operator's list; empty, and no address is opened at all."""

    hosts: tuple[Host, ...] = ()
    resolve: Resolve = resolved

    def __bool__(self) -> bool:
        return bool(self.hosts)

    def __str__(self) -> str:
        return ", ".join(map(str, self.hosts))

    def check(self, text: str) -> SplitResult:
        """The parts of an address that may be opened.

        Raises:
            VideoError: it is no address, or its host is not listed.
        """
        text = text.strip()
        try:
            parts = urlsplit(text)
            name, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise VideoError("this is not an address; write rtsp://host/path") from None
        if parts.scheme not in PORTS or not name or any(c.isspace() or c == "\\" for c in text):
            raise VideoError("an address starts with rtsp://, http:// or https:// and a host")
        port = port or PORTS[parts.scheme]
        if not any(one.name == name and one.port in (None, port) for one in self.hosts):
            raise VideoError(f"{name}:{port} is not among the hosts of this server ({self})")
        return parts

    def pin(self, text: str) -> Pinned:
        """An address with its host resolved once; nothing looks the name up again.

        Raises:
            VideoError: it may not be opened, or its host has no address.
        """
        parts = self.check(text)
        name, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
        try:
            number = self.resolve(name, port)[0]
        except (OSError, UnicodeError, IndexError):
            raise VideoError(f"{name}: the host cannot be found") from None
        return Pinned(parts, number, port)


@dataclass(frozen=True, slots=True)
class Pinned:
    """An address whose host was looked up."""

    parts: SplitResult
    number: str
    port: int

    def __str__(self) -> str:
        return redact(urlunsplit(self.parts))

    @property
    def address(self) -> Address:
        """What to connect to: the number for a name, but where TLS needs the name."""
        if self.parts.scheme == "https":
            return Address(urlunsplit(self.parts))
        user, at, _ = self.parts.netloc.rpartition("@")
        number = f"[{self.number}]" if ":" in self.number else self.number
        return Address(urlunsplit(self.parts._replace(netloc=f"{user}{at}{number}:{self.port}")))

    @property
    def options(self) -> dict[str, str]:
        """What FFmpeg is told: to follow nothing to another place."""
        if self.parts.scheme == "rtsp":
            return {"format_whitelist": "rtsp", "rtsp_transport": "tcp"}
        host = self.parts.netloc.rpartition("@")[2]
        return {
            "format_whitelist": FORMATS,
            "max_redirects": "0",
            "headers": f"Host: {host}\r\n",
        }


def open_address(pinned: Pinned, fps: float) -> FrameSource:
    """A camera, or a recording on a web server.

    Raises:
        VideoError: it cannot be opened, or leads elsewhere.
    """
    from mmkv.video.container import open_container
    from mmkv.video.live import LiveSource
    from mmkv.video.network import clean_logs, connect_network
    from mmkv.video.pyav_file import Job, PyAvFile

    name, address = str(pinned), pinned.address
    rtsp = pinned.parts.scheme == "rtsp"
    if rtsp:
        refuse_redirect(pinned)
    opening = partial(
        open_container, address, name, protocols=PROTOCOLS, options=pinned.options, timeout=TIMEOUT
    )
    if not rtsp:
        with clean_logs(address), opening() as container:
            recorded = container.duration is not None and container.duration > 0
        if recorded:
            timeout = (TIMEOUT, TIMEOUT)
            job = Job(address, name, fps, MAX_SIDE, PROTOCOLS, pinned.options, timeout)
            return PyAvFile(job)
    connect = connect_network(address, TIMEOUT, MAX_SIDE, pinned.options)
    return LiveSource(name, connect, fps=fps, reconnect=Reconnect(attempts=5))


def refuse_redirect(pinned: Pinned) -> None:
    """Ask an RTSP server for the stream once, since FFmpeg would follow it to any other.

    Raises:
        VideoError: it cannot be reached, or sends its visitors elsewhere.
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
