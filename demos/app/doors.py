"""How many connections and requests one address may hold, and how slow they may be."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Limits of connections.

    Addresses of this machine have no limit of their own: a reverse proxy's connections all come
    from there. What it forwards is counted by the address that it names.

    Attributes:
        total: connections at once; at most half of the files that this process may open.
        each: connections, and requests, of one address at once.
        head_seconds: for a request's head, from the connection's start or the last answer.
        body_seconds: for a request's body, besides what its length takes.
        body_rate: bytes a second that a body arrives with, at least.
        exempt: whether an address has no limit of its own.
    """

    total: int = 1000
    each: int = 200
    head_seconds: float = 15.0
    body_seconds: float = 20.0
    body_rate: float = 2000.0
    exempt: Callable[[str], bool] = field(default=lambda address: is_loopback(address))

    @property
    def most(self) -> int:
        """Connections at once."""
        return min(self.total, max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))


class Counts:
    """What is held at the moment, by address.

    Args:
        doors: the limits.
        total: of all addresses together; None for no such limit.
    """

    def __init__(self, doors: Doors, total: int | None = None) -> None:
        self._doors = doors
        self._total = total
        self._held: Counter[str] = Counter()

    def take(self, address: str) -> bool:
        """Count one more; returns whether there was room for it."""
        if self._total is not None and self._held.total() >= self._total:
            return False
        if self._held[address] >= self._doors.each and not self._doors.exempt(address):
            return False
        self._held[address] += 1
        return True

    def give(self, address: str) -> None:
        """Count one less."""
        self._held[address] -= 1
        if self._held[address] <= 0:
            del self._held[address]


def protocol(doors: Doors) -> type[asyncio.Protocol]:
    """Make uvicorn's protocol keep to limits.

    Args:
        doors: the limits.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol
    counts = Counts(doors, doors.most)

    class Limited(base):
        """A connection; one that is too many, or too slow with a head, is cut off."""

        _address: str | None = None
        _due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            address = network_of(transport.get_extra_info("peername"))
            super().connection_made(transport)
            if not counts.take(address):
                transport.abort()
                return
            self._address = address
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            if self._address is not None:
                counts.give(self._address)
                self._address = None
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._address is None:  # cut off
                return
            if self._due is None and self._waits:
                self._await_head()
            super().data_received(data)
            if not self._waits:
                self._stop_waiting()

        @property
        def _waits(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def _await_head(self) -> None:
            self._due = self.loop.call_later(doors.head_seconds, self.transport.abort)

        def _stop_waiting(self) -> None:
            if self._due is not None:
                self._due.cancel()
                self._due = None

    return Limited


class Patience:
    """ASGI middleware that ends requests which are too many, or whose body is too slow.

    Args:
        app: what is guarded.
        doors: the limits.
    """

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app = app
        self._doors = doors
        self._counts = Counts(doors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = network_of(scope.get("client"))
        if not self._counts.take(address):
            answer = PlainTextResponse("too many requests of one address at once", 429)
            await answer(scope, receive, send)
            return
        try:
            await self._app(scope, self._in_time(receive), send)
        finally:
            self._counts.give(address)

    def _in_time(self, receive: Receive) -> Receive:
        """Receive a body; a sender that is too slow counts as gone."""
        end = 0.0  # no time, before somebody wants the body
        complete = False

        async def receiving() -> Message:
            nonlocal end, complete
            if complete:
                return await receive()
            end = end or time.monotonic() + self._doors.body_seconds
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                return {"type": "http.disconnect"}
            end += len(message.get("body", b"")) / self._doors.body_rate
            complete = not message.get("more_body")
            return message

        return receiving


def network_of(client: Any) -> str:
    """Whose connection it is: an IPv4 address, or the network of an IPv6 address.

    Args:
        client: the address first, then the port; None where it is unknown.
    """
    try:
        number = ipaddress.ip_address(str(client[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return ""
    if isinstance(number, ipaddress.IPv4Address):
        return str(number)
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    if number.is_loopback:
        return str(number)
    return str(ipaddress.ip_network((int(number) >> 64 << 64, 64)))


def is_loopback(address: str) -> bool:
    """Whether an address from `network_of` is of this machine, or unknown."""
    return not address or ("/" not in address and ipaddress.ip_address(address).is_loopback)
