"""The demo: by which names, and from which pages, its server may be used.

The kind: a page of another place talks to this server in its visitor's name. Found with an Origin
that was echoed with credentials, and a Host that nobody checked. Siblings tried here: names that
only begin or end like an allowed one, names with users, ports and paths, other numbers, a forwarded
host, origins of other ports and schemes, `null`, streams of events, posts, and web sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from demo_visitors import Server

pytest.importorskip("gradio")

from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from mmkv.demos.app.names import Names, own_name
from mmkv.demos.app.server import Serving, application

NAME = "demo.example.org"


async def shared(scope: Any, receive: Any, send: Any) -> None:
    """An application that shares its answers with everybody."""
    shares = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true"}
    await PlainTextResponse("here", headers=shares)(scope, receive, send)


def asked(host: str, origin: str | None = None, *, server: str = "10.0.0.5", **more: str) -> Any:
    """What a server of the name `NAME`, reached at `server`, answers."""
    client = TestClient(Names(shared, [NAME, "192.168.1.2"]), base_url=f"http://{server}")
    headers = {"host": host, **more, **({} if origin is None else {"origin": origin})}
    return client.get("/", headers=headers)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "localhost:7860", "127.0.0.1:9", "[::1]", "[::1]:7860",
     "10.0.0.5:80", "192.168.1.2:7860", NAME, f"{NAME}:443", NAME.upper()],
)  # fmt: skip
def test_its_own_names_are_answered(host: str) -> None:
    assert asked(host).text == "here"
    assert asked(host, f"http://{host}").text == "here"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", f"{NAME}.evil.example", f"evil{NAME}", f"a.{NAME}",
     "localhost.evil.example", "127.0.0.1.evil.example", f"{NAME}@evil.example",
     f"evil.example/{NAME}", f"evil.example#{NAME}", f"{NAME},evil.example", "10.0.0.6",
     "2130706433", "0x7f.1", "127.1", "0.0.0.0", "[::]", "[::1", "localhost:x", "", " "],
)  # fmt: skip
def test_other_names_are_refused_in_a_sentence(host: str) -> None:
    answer = asked(host)
    assert answer.status_code in (400, 421)
    assert answer.text.count("\n") == 0
    assert asked("localhost", **{"x-forwarded-host": host or "x"}).status_code == 421


@pytest.mark.parametrize(
    ("host", "origin"),
    [("localhost:7860", "http://localhost:7860"), ("localhost", "http://localhost:80"),
     ("127.0.0.1:7860", f"https://{NAME}"), (NAME, f"https://{NAME}"), (NAME, f"http://{NAME}:8443")],
)  # fmt: skip
def test_its_own_pages_are_answered(host: str, origin: str) -> None:
    answer = asked(host, origin)
    assert answer.text == "here"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://localhost:3000", "http://localhost.evil.example:7860",
     f"http://{NAME}.evil.example", f"http://{NAME}@evil.example", "file://", "http://127.0.0.1:7860",
     "chrome-extension://abc", "http://[::1]:7860", "http://localhost:7860/a", "http://x:99999999"],
)  # fmt: skip
def test_pages_of_other_places_are_refused(origin: str) -> None:
    answer = asked("localhost:7860", origin)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = Server(tmp_path_factory.mktemp("web"))
    yield application(server.registry, Serving(names=[NAME]), server.folders.root)
    server.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/config"), ("GET", "/gradio_api/heartbeat/page"),
     ("GET", "/gradio_api/queue/data?session_hash=page"), ("POST", "/gradio_api/queue/join"),
     ("POST", "/gradio_api/cancel"), ("POST", "/login"), ("POST", "/mmkv/upload"),
     ("POST", "/mmkv/place"), ("POST", "/mmkv/picture"), ("GET", "/mmkv/page.js"),
     ("OPTIONS", "/gradio_api/queue/join")],
)  # fmt: skip
def test_every_way_in_asks_for_names(web: Any, method: str, path: str) -> None:
    client = TestClient(web, base_url="http://localhost")
    other = {"host": "evil.example"}
    assert client.request(method, path, headers=other).status_code == 421
    assert (
        client.request(method, path, headers={"origin": "http://evil.example"}).status_code == 403
    )


def test_a_page_is_not_shared_with_others(web: Any) -> None:
    answer = TestClient(web, base_url=f"http://{NAME}").get(
        "/", headers={"origin": f"http://{NAME}"}
    )
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("headers", [[(b"host", b"evil.example")], [(b"host", b"localhost")]])
def test_there_are_no_web_sockets(web: Any, headers: list[tuple[bytes, bytes]]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "scheme": "ws", "headers": headers}
    asyncio.run(web(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_bound_address_is_a_name_and_everywhere_is_none() -> None:
    assert Serving(host="192.168.1.7").known_as == ["192.168.1.7"]
    assert Serving(host="::", names=["Demo.Example.org."]).known_as == [NAME]


@pytest.mark.parametrize(
    "text", ["", "http://a", "a:80", "*", "*.a", "a/b", "a b", "u@a", ".a", "a..b"]
)
def test_a_name_is_a_name_only(text: str) -> None:
    with pytest.raises(ValueError, match="--server-name"):
        own_name(text)
