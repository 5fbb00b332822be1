"""What reaches Gradio at all, and from whom.

Gradio serves far more than this page needs: files by their path, addresses that it fetches for
whoever asks, named functions, other people's event streams. Here everything is closed except what
the page uses, and a page's hash belongs to the browser that used it first.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "mmkv-visitor"
OPEN = {
    "GET": (
        r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/logout"
        r"|/(assets|static|svelte)/.+"
        r"|/gradio_api/(heartbeat/[\w-]+|queue/data|startup-events|login_check/?|user/?"
        r"|app_id/?|info/?|theme\.css)"
        r"|/mmkv/(page\.js|video/[\w-]+)"
    ),
    "POST": (
        r"/login/?|/gradio_api/(queue/join|cancel|reset)/?|/mmkv/(place|upload|camera|picture)"
    ),
}
OPEN["HEAD"] = OPEN["GET"]
LARGE = ("/mmkv/upload", "/mmkv/picture")  # these limit their size themselves
MAX_BODY = 64_000
MAX_PAGES = 20_000
BURST = 120  # events that a browser may ask for at once
RATE = 40.0  # events a second
_PAGE = re.compile(r"[\w-]{1,64}", re.ASCII)
_VISITOR = re.compile(r"[A-Za-z0-9_-]{43}")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


class Guard:
    """ASGI middleware; `visitor_of` then knows the browser of every request that passes.

    Args:
        app: what is guarded.
        here: called with the hash of each page that opens its connection, or reopens it.
        functions: by the number of each of the page's events, a check of each of its values.
    """

    def __init__(
        self,
        app: ASGIApp,
        here: Callable[[str], None] = lambda page: None,
        functions: Mapping[int, Sequence[Callable[[object], bool]]] | None = None,
    ) -> None:
        self._app = app
        self._here = here
        self._functions = functions or {}
        self._owners: OrderedDict[str, str] = OrderedDict()  # of pages, by hash
        self._events: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, and when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowed = OPEN.get(scope["method"])
        if allowed is None or not re.fullmatch(allowed, scope["path"]):
            await PlainTextResponse("not here", 404)(scope, receive, send)
            return
        known = visitor_of(Headers(scope=scope).get("cookie", ""))
        visitor = known or secrets.token_urlsafe(32)
        try:
            receive = await self._checked(scope, receive, visitor)
        except Refused as refused:
            await PlainTextResponse(str(refused), refused.status)(scope, receive, send)
            return
        fresh = visitor if known is None and scope["path"] == "/" else None
        await self._app(scope, receive, _with_headers(scope, send, fresh))

    async def _checked(self, scope: Scope, receive: Receive, visitor: str) -> Receive:
        """Let a request pass only if it is about the visitor's own page."""
        path = scope["path"]
        if path.startswith("/gradio_api/heartbeat/"):
            page = path.rpartition("/")[2]
            self._own(page, visitor)
            self._here(page)
        if path == "/gradio_api/queue/data":
            for page in parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", []):
                self._own(page, visitor)
        if scope["method"] != "POST" or path in LARGE:
            return receive
        body = await _whole(receive)
        if path.startswith("/gradio_api/"):
            try:
                asked = json.loads(body)
                json.dumps(asked, ensure_ascii=False).encode()  # whole characters only
                page = asked["session_hash"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise Refused(400, "no page named") from None
            self._own(page, visitor)
            if "/queue/join" in path:
                self._check(asked, visitor)
        return _again(body, receive)

    def _check(self, asked: dict[str, object], visitor: str) -> None:
        """Let an event pass only if the page has one of this number, which takes these values."""
        number, values = asked.get("fn_index"), asked.get("data")
        if type(number) is not int or number not in self._functions:
            raise Refused(404, "there is no such event")
        checks = self._functions[number]
        if not isinstance(values, list) or len(values) != len(checks):
            raise Refused(422, f"this event takes a list of {len(checks)} values")
        if not all(check(value) for check, value in zip(checks, values, strict=True)):
            raise Refused(422, "this event does not take such values")
        now = time.monotonic()
        left, since = self._events.pop(visitor, (float(BURST), now))
        left = min(float(BURST), left + RATE * (now - since))
        self._events[visitor] = max(0.0, left - 1), now  # the newest last
        if len(self._events) > MAX_PAGES:
            self._events.popitem(last=False)
        if left < 1:
            raise Refused(429, "too many events at once")

    def _own(self, page: object, visitor: str) -> None:
        if not isinstance(page, str) or not _PAGE.fullmatch(page):
            raise Refused(400, "this is not a page")
        owner = self._owners.setdefault(page, visitor)
        self._owners.move_to_end(page)
        if len(self._owners) > MAX_PAGES:
            self._owners.popitem(last=False)
        if not secrets.compare_digest(owner, visitor):
            raise Refused(403, "this page belongs to another visitor")


class Refused(Exception):
    """A request that is refused.

    Args:
        status: of the response.
        text: of the response.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def visitor_of(cookies: str) -> str | None:
    """Read the browser's own secret from a Cookie header; None if it has none yet."""
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None and _VISITOR.fullmatch(morsel.value) else None


async def _whole(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "cut off")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise Refused(413, "too large")
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(scope: Scope, send: Send, visitor: str | None) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = POLICY
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Permissions-Policy"] = "camera=(self), microphone=(), geolocation=()"
            if scope["path"] == "/":
                headers["Cache-Control"] = "no-store"
            if visitor is not None:
                secure = "; Secure" if scope["scheme"] == "https" else ""
                headers.append(
                    "Set-Cookie", f"{COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Lax{secure}"
                )
        await send(message)

    return sending
