"""Network addresses that visitors may type: only on hosts that the operator listed."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from mmkv.demos.app.pinned import Pinned
from mmkv.video import VideoError

PORTS = {"rtsp": 554, "http": 80, "https": 443}
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Host:
    """A listed host.

    Attributes:
        name: in lower case.
        port: the only one allowed; None for any.
    """

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Host:
        """Read a host such as `camera.local`, `10.0.0.7:8554` or `[fd00::7]:554`.

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
    """Resolve a host's addresses as the system does."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The operator's list; if it is empty, no address is opened at all.

    Attributes:
        hosts: those that are allowed.
        resolve: returns a host's addresses.
    """

    hosts: tuple[Host, ...] = ()
    resolve: Resolve = resolved

    def __bool__(self) -> bool:
        return bool(self.hosts)

    def __str__(self) -> str:
        return ", ".join(map(str, self.hosts))

    def check(self, text: str) -> SplitResult:
        """Check that an address may be opened, and split it into its parts.

        Raises:
            VideoError: it is not an address, or its host is not listed.
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
        """Resolve an address's host, once; nothing looks up the name again.

        Raises:
            VideoError: it may not be opened, or its host has no address.
        """
        parts = self.check(text)
        name, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
        try:
            number = self.resolve(name, port)[0]
            refused = leads_astray(name, number)
        except (OSError, ValueError, IndexError):
            raise VideoError(f"{name}: the host cannot be found") from None
        if refused:
            raise VideoError(f"{name}: it leads to {number}, where no camera is looked for")
        return Pinned(parts, number, port)


def leads_astray(name: str, number: str) -> bool:
    """Whether a name leads to this machine itself, or to an address that is no host's.

    Whoever rules over a listed name could have it lead there. An operator who wants it lists the
    number, or localhost.

    Args:
        name: of a host, or a number, which is what it is.
        number: IP address that it has.

    Raises:
        ValueError: that is no IP address.
    """
    found = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if name == number or f".{name}".endswith(".localhost"):
        return False
    return (
        found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified
        or found.is_reserved
    )  # fmt: skip
