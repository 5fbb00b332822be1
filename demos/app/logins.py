"""Logging in: passwords that are compared in constant time, and a delay after wrong ones."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmkv.demos.app.doors import network_of

FREE = 3  # tries without a delay
LONGEST = 300.0  # seconds of delay
FORGET = 3600.0  # seconds after which an address begins anew
ADDRESSES = 10_000  # remembered at once


def credentials(users: Sequence[tuple[str, str]]) -> Callable[[str, str], bool]:
    """Make a check of a name and a password that takes as long whatever is wrong with them.

    Args:
        users: those who may log in.
    """
    known = [(_digest(name), _digest(password)) for name, password in users]

    def check(name: str, password: str) -> bool:
        given = _digest(name), _digest(password)
        found = False
        for one in known:
            same = [hmac.compare_digest(a, b) for a, b in zip(given, one, strict=True)]
            found |= all(same)
        return found

    return check


@dataclass(slots=True)
class Tries:
    """What an address tried.

    Attributes:
        count: wrong passwords.
        until: when it may try again.
        last: when it tried last.
    """

    count: int = 0
    until: float = 0.0
    last: float = 0.0


class Logins:
    """ASGI middleware: after three wrong passwords an address waits 1 s, then twice as long each.

    A try counts as wrong until it proves right, so that many at once gain nothing.

    Args:
        app: what is guarded.
        clock: seconds that only rise.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._tried: OrderedDict[str, Tries] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        login = scope["type"] == "http" and scope["path"].rstrip("/") == "/login"
        if not login or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        address = network_of(scope.get("client"))
        wait = self._try(address)
        if wait > 0:
            seconds = math.ceil(wait)
            text = f"Too many wrong passwords; try again in {seconds} s."
            answer = PlainTextResponse(text, 429, {"Retry-After": str(seconds)})
            await answer(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._tried.pop(address, None)
            await send(message)

        await self._app(scope, receive, sending)

    def _try(self, address: str) -> float:
        """Count a try; returns the seconds to wait instead, 0 if there are none."""
        now = self._clock()
        tries = self._tried.pop(address, Tries())
        if now - tries.last > FORGET:
            tries = Tries()
        self._tried[address] = tries  # the newest last
        if len(self._tried) > ADDRESSES:
            self._tried.popitem(last=False)
        if now < tries.until:
            return tries.until - now
        tries.count += 1
        tries.last = now
        if tries.count >= FREE:
            tries.until = now + min(LONGEST, 2.0 ** min(tries.count - FREE, 20))
        return 0.0


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
