"""The demo's web server: what it answers, to whom, and what it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_visitors import Server, until
from video_servers import jpeg

from mmkv.models.tiny import SAMPLE_VIDEO

pytest.importorskip("gradio")

from starlette.testclient import TestClient

from mmkv.demos.app.guard import COOKIE
from mmkv.demos.app.server import Serving, application
from mmkv.demos.app.visit import Key


class Web:
    """A server's application, and browsers that talk to it."""

    def __init__(self, folder: Path, users: Any = (), **limits: Any) -> None:
        self.inner = Server(folder, **limits)
        self.registry = self.inner.registry
        self.app: Any = application(self.registry, Serving(users=users), self.inner.folders.root)

    def browser(self) -> TestClient:
        client = TestClient(self.app, base_url="http://localhost")
        client.get("/")
        return client

    def open_page(self, browser: TestClient, name: str) -> Any:
        """What Gradio's load event does; afterwards the browser's requests name its tab."""
        browser.headers["x-mmkv-tab"] = f"tab of {name}"
        key = Key(browser.cookies[COOKIE], f"tab of {name}")
        return self.registry.enter(key, f"page of {name}")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    one = Web(tmp_path_factory.mktemp("web"), upload_bytes=2_000_000, sessions=2)
    yield one
    one.inner.close()


@pytest.fixture
def mine(web: Web) -> Iterator[tuple[TestClient, Any]]:
    """A browser with an open page and a place."""
    browser = web.browser()
    visit = web.open_page(browser, "mine")
    assert browser.post("/mmkv/place").json() == {"position": 0}
    yield browser, visit
    web.registry.release(visit)


def upload(browser: TestClient, content: bytes, name: str = "mine.mp4") -> Any:
    return browser.post("/mmkv/upload", content=content, headers={"x-mmkv-name": name})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file=http://example.com/"),
        ("HEAD", "/gradio_api/file=http://example.com/"),
        ("GET", "/gradio_api/proxy=http://example.com/"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/enter"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/deep_link?session_hash=x"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("PUT", "/"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(web: Web, method: str, path: str) -> None:
    assert web.browser().request(method, path).status_code == 404


def test_the_page_loads_nothing_from_elsewhere(web: Web) -> None:
    browser = web.browser()
    answer = browser.get("/")
    loaded = re.findall(r"(?:src|href)=[\"'](https?:)?//", answer.text)
    assert loaded == []
    assert "fonts.googleapis" not in browser.get("/theme.css").text
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    config = browser.get("/config").json()
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert all(event["api_visibility"] == "private" for event in config["dependencies"])


def test_the_switch_for_follow_ups_says_why_it_is_off(web: Web) -> None:
    parts = web.browser().get("/config").json()["components"]
    (info,) = [p["props"]["info"] for p in parts if p["props"].get("elem_id") == "mm-follow-ups"]
    assert info == "Off with mmkv-tiny, which was not trained to follow a conversation."


def test_the_visitors_secret_is_not_for_scripts(web: Web) -> None:
    set_cookie = TestClient(web.app, base_url="http://localhost").get("/").headers["set-cookie"]
    assert "HttpOnly" in set_cookie
    assert "SameSite=Lax" in set_cookie


def test_a_sent_video_is_watched_and_played_back_to_its_sender_alone(
    web: Web, mine: tuple[TestClient, Any]
) -> None:
    browser, visit = mine
    assert upload(browser, SAMPLE_VIDEO.read_bytes(), "my%20film.mp4").json() == {
        "name": "my film.mp4"
    }
    watch = visit.session.watch
    until(lambda: watch.encoded)
    path = f"/mmkv/video/{watch.video.token}"
    part = browser.get(path, headers={"range": "bytes=0-99"})
    assert part.status_code == 206
    assert part.content == SAMPLE_VIDEO.read_bytes()[:100]
    assert "no-store" in part.headers["cache-control"]
    other = web.browser()
    web.open_page(other, "other")
    assert other.get(path).status_code == 404
    assert TestClient(web.app, base_url="http://localhost").get(path).status_code == 404
    web.registry.release(visit)
    assert browser.get(path).status_code == 404
    assert not list(visit.session.folder.iterdir())


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "odd name.mp4: the file is empty (0 bytes)."),
        (b"no video at all" * 100, 422, "damaged, cut off or not a video"),
        (b"x" * 2_000_001, 413, "larger than the 2.0 MB"),
    ],
)
def test_a_bad_upload_is_refused_in_a_sentence_and_deleted(
    mine: tuple[TestClient, Any], content: bytes, status: int, words: str
) -> None:
    browser, visit = mine
    answer = upload(browser, content, "..%2F..%2Fodd%20name.mp4")
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert str(visit.session.folder) not in answer.text
    assert not list(visit.session.folder.iterdir())


def test_an_upload_that_lies_about_its_size_is_cut_off(mine: tuple[TestClient, Any]) -> None:
    browser, visit = mine

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    answer = browser.post("/mmkv/upload", content=endless(), headers={"x-mmkv-name": "a.mp4"})
    assert answer.status_code == 413
    assert not list(visit.session.folder.iterdir())


def test_a_third_visitor_is_told_the_position_and_cannot_send(
    web: Web, mine: tuple[TestClient, Any]
) -> None:
    browsers = [web.browser() for _ in range(2)]
    visits = [web.open_page(b, f"late {i}") for i, b in enumerate(browsers)]
    told = [browser.post("/mmkv/place").json()["position"] for browser in browsers]
    assert told == [0, 1]
    assert upload(browsers[1], SAMPLE_VIDEO.read_bytes()).status_code == 503
    for visit in visits:
        web.registry.release(visit)


@pytest.mark.parametrize("what", ["file", "camera"])
def test_a_place_that_is_given_back_meanwhile_starts_nothing(
    web: Web, mine: tuple[TestClient, Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, visit = mine
    begin = getattr(visit.session, what)

    def late(*arguments: Any) -> None:
        web.registry.release(visit)
        begin(*arguments)

    monkeypatch.setattr(visit.session, what, late)
    sent = SAMPLE_VIDEO.read_bytes()
    answer = upload(browser, sent) if what == "file" else browser.post("/mmkv/camera")
    assert answer.status_code == 422
    assert visit.session.watch is None
    assert not list(visit.session.folder.iterdir())


def test_requests_without_an_open_page_get_nothing(web: Web, mine: tuple[TestClient, Any]) -> None:
    stranger = web.browser()
    for what in ("place", "upload", "camera", "picture"):
        answer = stranger.post(f"/mmkv/{what}", headers={"x-mmkv-tab": "tab of mine"})
        assert answer.status_code == 404


def test_camera_pictures_go_to_the_senders_session(mine: tuple[TestClient, Any]) -> None:
    browser, visit = mine
    assert browser.post("/mmkv/picture", content=jpeg(1)).json() == {"taken": False}
    assert browser.post("/mmkv/camera").status_code == 200
    assert browser.post("/mmkv/picture", content=jpeg(1)).json() == {"taken": True}
    until(lambda: visit.session.watch.encoded is not None)
    visit.session.watch.camera._gap = 0.0
    assert browser.post("/mmkv/picture", content=b"no picture").status_code == 422
    assert browser.post("/mmkv/picture", content=b"x" * 5_000_000).status_code == 413


def test_a_page_belongs_to_the_browser_that_opened_it(web: Web) -> None:
    mine, other = web.browser(), web.browser()
    join = {"data": [None], "fn_index": 0, "session_hash": "my-page"}
    assert mine.post("/gradio_api/queue/join", json=join).status_code == 200
    for attempt in (
        other.post("/gradio_api/queue/join", json=join),
        other.post("/gradio_api/cancel", json={**join, "event_id": "x"}),
        other.get("/gradio_api/queue/data?session_hash=my-page"),
        other.get("/gradio_api/heartbeat/my-page"),
    ):
        assert attempt.status_code == 403
    assert other.post("/gradio_api/queue/join", json={"data": []}).status_code == 400
    large = {**join, "data": ["x" * 70_000]}
    assert mine.post("/gradio_api/queue/join", json=large).status_code == 413


def test_with_passwords_nothing_is_seen_before_the_login(tmp_path: Path) -> None:
    web = Web(tmp_path, users=[("me", "secret")])
    try:
        browser = web.browser()
        assert browser.get("/config").status_code == 401
        assert '"auth_required":true' in browser.get("/").text.replace(" ", "")
        join = {"data": [None], "fn_index": 0, "session_hash": "page"}
        assert browser.post("/gradio_api/queue/join", json=join).status_code == 401
        wrong = browser.post("/login", data={"username": "me", "password": "guess"})
        assert wrong.status_code == 400
        right = browser.post("/login", data={"username": "me", "password": "secret"})
        assert right.status_code == 200
        assert browser.get("/config").status_code == 200
    finally:
        web.inner.close()
