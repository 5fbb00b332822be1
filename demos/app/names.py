"""The names that a server answers to, and the pages that may talk to it.

A page of another place can have its own name looked up anew as this server's address, and would
then be of one origin with it (DNS rebinding). It still says its own name in each request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = ("localhost", "127.0.0.1", "::1")
PORTS = {"http": 80, "https": 443}
Place = tuple[str, int | None]


class Names:
    """ASGI middleware that refuses requests by other names, and from pages of other places.

    A number that a request came to is allowed too: nobody can have it looked up anew.

    Args:
        app: what is guarded.
        names: the server's own names and numbers, in lower case.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self._app = app
        self._own = frozenset(names)
        self._names = frozenset((*ALWAYS, *names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None:
            await self._app(scope, receive, _without_sharing(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(refused[1], refused[0])(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence that a request is refused with; None where it may pass."""
        headers = Headers(scope=scope)
        hosts = [*headers.getlist("host"), *headers.getlist("x-forwarded-host")]
        places = [place_of(f"//{host}", scope["scheme"]) for host in hosts]
        if not headers.getlist("host"):
            return 400, "the request names no host"
        came_to = str((scope.get("server") or ("",))[0])
        for host, place in zip(hosts, places, strict=True):
            name = "" if place is None else place[0]
            if name not in self._names and not (is_number(name) and name == came_to):
                return 421, (
                    f"this server does not go by the name {host[:80]!r}; use its address, or have "
                    "it started with --server-name and that name"
                )
        for origin in headers.getlist("origin"):
            place = place_of(origin)
            if place is None or not (place in places or place[0] in self._own):
                return 403, f"pages of {origin[:80]!r} may not use this server"
        return None


def place_of(url: str, scheme: str = "") -> Place | None:
    """Read host and port of a URL; None where it has none.

    Args:
        url: such as `https://demo.example.org` or `//[::1]:7860`.
        scheme: for a URL without one.
    """
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return None
    if not name or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return name, port or PORTS.get(parts.scheme or scheme)


def is_number(name: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_name(text: str) -> str:
    """Read a name for `--server-name`, in lower case.

    Raises:
        ValueError: it is not a host's name.
    """
    name = text.strip().lower().rstrip(".").strip("[]")
    if not is_number(name) and not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        raise ValueError(
            f"--server-name {text!r} is not a host's name; write demo.example.org, without a "
            "scheme or port"
        )
    return name


def _without_sharing(send: Send) -> Send:
    """Take back what would let pages of other places read an answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]
        await send(message)

    return sending
