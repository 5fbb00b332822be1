"""The demo: requests that its page would never send.

The kind: nonsense that ends in a traceback, or that many of take what others need. Siblings tried
here: unknown events and pages, values that no control has, deep, cut off and odd JSON, wrong
passwords one after the other and at once, slow heads and bodies, connections that say nothing, and
stops, questions and followers by the hundred.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from demo_visitors import Clock, Server, tiny, until
from waiting import PATIENCE, finish

pytest.importorskip("gradio")

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from mmkv.demos.app import guard
from mmkv.demos.app import registry as registry_module
from mmkv.demos.app.doors import Doors, Patience, is_loopback, network_of, protocol
from mmkv.demos.app.events import Events
from mmkv.demos.app.logins import Logins, credentials
from mmkv.demos.app.server import Serving, application
from mmkv.demos.app.visit import Key

JOIN = "/gradio_api/queue/join"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = Server(tmp_path_factory.mktemp("web"))
    yield application(server.registry, Serving(), server.folders.root)
    server.close()


@pytest.fixture(scope="module")
def browser(app: Any) -> TestClient:
    return entered(app)


def entered(app: Any) -> TestClient:
    client = TestClient(app, base_url="http://localhost")
    client.headers["content-type"] = "application/json"
    client.get("/")
    return client


def body(**changes: Any) -> bytes:
    return json.dumps(
        {"data": ["t" * 20], "fn_index": 0, "session_hash": "abuse", **changes}
    ).encode()


BODIES = {
    "no event": body(fn_index=None),
    "unknown event": body(fn_index=9999),
    "negative event": body(fn_index=-1),
    "named event": body(fn_index="enter"),
    "true event": body(fn_index=True),
    "event of a fraction": body(fn_index=0.0),
    "large event": body(fn_index=10**400),
    "no values": body(data=None),
    "values by name": body(data={"tab": 1}),
    "too many values": body(data=["a"] * 50),
    "no value": body(data=[]),
    "a number for a text": body(data=[1]),
    "half a character": body(data=["\ud800"]),
    "no page": body(session_hash=None),
    "a page of numbers": body(session_hash=7),
    "a page of lists": body(session_hash=["abuse"]),
    "an odd page": body(session_hash="../a"),
    "a long page": body(session_hash="a" * 65),
    "a trigger of text": body(trigger_id="x" * 9),
    "nothing": b"",
    "no JSON": b"data=1",
    "half of it": body()[:-9],
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "deep": b"[" * 30_000,
    "deep and whole": b'{"session_hash":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "no text": b"\xff\xfe{}",
    "a long number": b'{"session_hash": "abuse", "fn_index": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("what", list(BODIES))
def test_nonsense_is_refused_without_a_traceback(
    browser: TestClient, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (JOIN, f"{JOIN}/"):
        answer = browser.post(path, content=BODIES[what])
        assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/reset/"])
@pytest.mark.parametrize("what", list(BODIES))
def test_nonsense_about_events_harms_nothing(
    browser: TestClient, path: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = browser.post(path, content=BODIES[what])
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/queue/data", "/gradio_api/heartbeat/a.b", "/gradio_api/heartbeat/" + "a" * 65,
     "/gradio_api/queue/data?session_hash=..", "/gradio_api/call/enter/x", "/gradio_api/api/enter",
     "/mmkv/video/" + "a" * 32, "/mmkv/video/..", "/static/..%2f..%2fetc/passwd", "/assets/..%5c..",
     "/gradio_api/queue/data?session_hash=a%00b", "/%00"],
)  # fmt: skip
def test_odd_places_are_not_there(
    browser: TestClient, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert 400 <= browser.get(path).status_code < 500
    assert "Traceback" not in "".join(capfd.readouterr())


def settings(browser: TestClient) -> tuple[int, list[Any]]:
    """The number of the event that takes over settings, and values that it takes."""
    found = [d for d in browser.get("/config").json()["dependencies"] if len(d["inputs"]) == 5]
    return found[0]["id"], ["High", 2, 8, True, False]


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, "Best"), (0, ["High"]), (0, None), (1, 3.0), (1, "1.0"), (1, True), (2, 1e9), (2, "8"),
     (2, float("nan")), (2, float("inf")), (3, "yes"), (3, 1), (4, None), (4, {})],
)  # fmt: skip
def test_values_that_no_control_has_are_refused(
    browser: TestClient, place: int, value: Any
) -> None:
    number, values = settings(browser)
    right = body(fn_index=number, data=values)
    assert browser.post(JOIN, content=right).status_code == 200
    values[place] = value
    assert browser.post(JOIN, content=body(fn_index=number, data=values)).status_code == 422


def test_a_browser_has_only_so_many_events_at_once(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "RATE", 0.0)
    browser = entered(app)
    number, values = settings(browser)
    event = body(fn_index=number, data=values, session_hash="burst")
    told = [browser.post(JOIN, content=event).status_code for _ in range(guard.BURST + 9)]
    assert told == [200] * guard.BURST + [429] * 9


# passwords


class Door:
    """A login of one password, with a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wait = 0
        check = credentials([("me", "secret"), ("you", "other")])

        async def login(scope: Any, receive: Any, send: Any) -> None:
            given = (await Request(scope, receive).body()).decode()
            right = check("me", given)
            await PlainTextResponse("", 200 if right else 400)(scope, receive, send)

        self.app = Logins(login, self.clock)

    def knock(self, password: str, address: str = "203.0.113.5") -> int:
        client = TestClient(self.app, client=(address, 1))  # type: ignore[arg-type]
        answer = client.post("/login", content=password)
        self.wait = int(answer.headers.get("retry-after", 0))
        return int(answer.status_code)


def test_wrong_passwords_wait_longer_and_longer() -> None:
    door = Door()
    assert [door.knock("guess") for _ in range(4)] == [400, 400, 400, 429]
    waits = []
    for _ in range(12):
        assert door.knock("guess") == 429
        waits.append(door.wait)
        door.clock.now += door.wait
        assert door.knock("guess") == 400
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert door.knock("secret") == 429  # even so
    assert door.knock("secret", "203.0.113.6") == 200
    door.clock.now += 300
    assert door.knock("secret") == 200
    assert [door.knock("guess") for _ in range(3)] == [400, 400, 400]


def test_neighbours_of_one_network_are_one() -> None:
    door = Door()
    told = [door.knock("guess", f"2001:db8::{i}") for i in range(5)]
    assert told == [400, 400, 400, 429, 429]
    assert door.knock("guess", "2001:db8:0:1::") == 400


def test_guesses_at_once_gain_nothing() -> None:
    waiting = asyncio.Event()
    passed = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal passed
        passed += 1
        await waiting.wait()
        await PlainTextResponse("", 400)(scope, receive, send)

    async def send(message: Any) -> None:
        told.append(message)

    told: list[Any] = []
    scope = {"type": "http", "path": "/login/", "method": "POST", "client": ("203.0.113.5", 1)}

    async def all_at_once() -> None:
        logins = Logins(slow, Clock())
        tries = [asyncio.create_task(logins(scope, None, send)) for _ in range(100)]  # type: ignore[arg-type]
        while len(told) < 2 * 97:
            await asyncio.sleep(0)
        waiting.set()
        await asyncio.gather(*tries)

    asyncio.run(all_at_once())
    assert passed == 3


@pytest.mark.parametrize(
    ("name", "password", "right"),
    [("me", "secret", True), ("you", "other", True), ("me", "other", False), ("me", "", False),
     ("", "secret", False), ("ME", "secret", False), ("me", "secret ", False),
     ("\ud800", "é", False)],
)  # fmt: skip
def test_a_name_goes_with_its_own_password(name: str, password: str, right: bool) -> None:
    assert credentials([("me", "secret"), ("you", "other")])(name, password) is right


# connections


@contextmanager
def served(doors: Doors) -> Iterator[int]:
    """A server that says how much it was sent; its port."""

    async def count(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            try:
                text = str(len(await Request(scope, receive).body()))
            except ClientDisconnect:
                text = "gone"
            await PlainTextResponse(text)(scope, receive, send)

    config = uvicorn.Config(
        Patience(count, doors), http=protocol(doors), lifespan="off", log_level="critical",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        finish(thread)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def told(connection: socket.socket) -> bytes:
    """What a server says until it hangs up."""
    data = b""
    try:
        while piece := connection.recv(9999):
            data += piece
    except ConnectionResetError:
        pass
    return data


POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: loc"])
def test_who_does_not_finish_a_head_is_cut_off(beginning: bytes) -> None:
    with served(Doors(head_seconds=0.3)) as port, connected(port) as connection:
        connection.sendall(beginning)
        assert told(connection) == b""


def test_a_head_after_an_answer_has_to_be_finished_too() -> None:
    with served(Doors(head_seconds=0.3)) as port, connected(port) as connection:
        connection.sendall(POST + b"abcd")
        assert connection.recv(999).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HT")
        assert b"HTTP/1.1" not in told(connection)


def test_who_does_not_finish_a_body_is_gone() -> None:
    doors = Doors(body_seconds=0.3, head_seconds=0.1)
    with served(doors) as port, connected(port) as connection:
        connection.sendall(POST + b"ab")
        assert told(connection).endswith(b"gone")


def test_a_body_that_comes_steadily_may_take_longer() -> None:
    with served(Doors(body_seconds=60.0, head_seconds=0.1)) as port, connected(port) as connection:
        connection.sendall(POST)
        for letter in (b"a", b"b", b"c", b"d"):
            threading.Event().wait(0.1)
            connection.sendall(letter)
        assert connection.recv(999).startswith(b"HTTP/1.1 200")


def others(address: str) -> bool:
    return False


def held(port: int, count: int) -> int:
    """How many of `count` connections at once are answered."""
    every = [connected(port) for _ in range(count)]
    try:
        answered = 0
        for one in every:
            try:
                one.sendall(POST + b"abcd")
                answered += one.recv(999).startswith(b"HTTP/1.1 200")
            except (ConnectionResetError, BrokenPipeError):
                continue
        return answered
    finally:
        for one in every:
            one.close()


def test_an_address_has_only_so_many_connections_and_then_again() -> None:
    with served(Doors(each=10, exempt=others)) as port:
        assert held(port, 40) == 10
        until(lambda: held(port, 5) == 5)


def test_this_machine_has_no_limit_but_the_total() -> None:
    with served(Doors(each=3, total=20)) as port:
        assert held(port, 40) == 20


def test_addresses_behind_a_proxy_are_told_apart() -> None:
    doors = Doors(each=2)
    hold = asyncio.Event()
    statuses: list[int] = []

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await hold.wait()
        await PlainTextResponse("")(scope, receive, send)

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def all_at_once() -> None:
        app = Patience(busy, doors)
        scopes = [
            {"type": "http", "client": (address, 1)}
            for address in ["203.0.113.5"] * 5 + ["203.0.113.6"] * 2 + ["127.0.0.1"] * 5
        ]
        tasks = [asyncio.create_task(app(scope, None, send)) for scope in scopes]  # type: ignore[arg-type]
        while len(statuses) < 3:
            await asyncio.sleep(0)
        hold.set()
        await asyncio.gather(*tasks)

    asyncio.run(all_at_once())
    assert statuses == [429] * 3 + [200] * 9


@pytest.mark.parametrize(
    ("client", "network"),
    [(("203.0.113.5", 1), "203.0.113.5"), (("::ffff:203.0.113.5", 1), "203.0.113.5"),
     (("fe80::1%eth0", 1), "fe80::/64"), (("2001:db8:1:2:3::", 1), "2001:db8:1:2::/64"),
     (("::1", 1), "::1"), (None, ""), (("testclient", 1), "")],
)  # fmt: skip
def test_whose_connection_it_is(client: Any, network: str) -> None:
    assert network_of(client) == network
    assert is_loopback(network) == (network in ("", "::1"))


# storms


def storm(work: Callable[[], object], count: int) -> None:
    """Do something many times from some threads."""
    failed: list[Exception] = []

    def some() -> None:
        for _ in range(count // 8):
            try:
                work()
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=some) for _ in range(8)]
    for one in threads:
        one.start()
    finish(*threads)
    assert not failed


class Asking:
    """A request of a page, as Gradio hands it to the page's events."""

    def __init__(self, name: str) -> None:
        self.session_hash, self.username = f"page of {name}", None
        self.cookies = {"mmkv-visitor": f"visitor {name}"}


def test_a_storm_of_stops_and_questions_ends_with_one_answer(tmp_path: Path) -> None:
    server = Server(tmp_path)
    visit = server.visit("a")
    visit.session.sample()
    until(lambda: visit.session.watch and visit.session.watch.encoded)
    events, request = Events(server.registry), Asking("a")

    def press() -> None:
        for _ in range(5):
            events.stop(request)  # type: ignore[arg-type]
        for _ in events.ask({}, "What is there now?", "encoded", request):  # type: ignore[arg-type]
            events.stop(request)  # type: ignore[arg-type]

    storm(press, 40)
    events.stop(request)  # type: ignore[arg-type]
    until(lambda: all(one.join(0.1) for one in visit.session.exchanges))
    assert visit.session.answering is None
    assert len(visit.session.exchanges) <= 50
    exchange = visit.session.ask("What is there now?", "encoded")
    until(lambda: exchange.over)
    assert exchange.state == "done"
    server.close()


def test_of_those_who_follow_an_answer_one_stays(tmp_path: Path) -> None:
    server = Server(tmp_path)
    visit = server.visit("a")
    visit.session.sample()
    until(lambda: visit.session.watch and visit.session.watch.encoded)
    events, request = Events(server.registry), Asking("a")
    with tiny().lock.hold():  # no answer comes
        visit.session.ask("What is there now?", "encoded")
        followers = [
            threading.Thread(target=lambda: list(events.follow(request)), daemon=True)  # type: ignore[arg-type]
            for _ in range(40)
        ]
        for one in followers:
            one.start()
        until(lambda: sum(one.is_alive() for one in followers) == 1)
    finish(*followers)
    server.close()


def test_pages_of_many_browsers_are_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "VISITS", 10)
    server = Server(tmp_path)
    first, placed = server.visit("first"), server.visit("placed")
    server.registry.place(placed)
    for number in range(40):
        server.clock.now = number
        first.session.beat()
        server.registry.enter(Key(f"visitor {number}", "its tab"), f"page {number}")
    assert len(server.registry._visits) == 10
    assert not first.session.ended  # its page is there
    assert not placed.session.ended
    assert len(list(server.folders.root.iterdir())) == 11  # with the lock
    server.close()
