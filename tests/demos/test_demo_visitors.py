"""The demo: visitors come and go, and nothing of theirs stays: memory, threads, files."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_browser import Running
from demo_visitors import tiny, until

from mmkv.models.tiny import SAMPLE_VIDEO

pytest.importorskip("gradio")
psutil = pytest.importorskip("psutil")
httpx = pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = Running(
        tiny(), tmp_path_factory.mktemp("run"), sessions=2, leave_seconds=0.1, stream_seconds=20
    )
    yield one
    one.close()


class Visitor:
    """A browser without a window: one that opens the page, sends a video, asks, and leaves."""

    def __init__(self, running: Running, number: int) -> None:
        self._web = httpx.Client(base_url=running.url, timeout=120, trust_env=False)
        self._page = f"page{number}"
        self._web.get("/")
        self._web.headers["x-mmkv-tab"] = self._tab = f"tab of visitor {number:03d}"
        self._running = running
        config = self._web.get("/config").json()
        self._events = {d["api_name"]: d for d in config["dependencies"] if d["api_name"]}

    def event(self, name: str, *values: Any) -> list[Any]:
        """What Gradio sends until an event is over."""
        number = self._events[name]["id"]
        asked = {"data": list(values), "fn_index": number, "session_hash": self._page}
        assert self._web.post("/gradio_api/queue/join", json=asked).status_code == 200
        told = []
        way = f"/gradio_api/queue/data?session_hash={self._page}"
        with self._web.stream("GET", way) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    told.append(json.loads(line[5:]))
                    if told[-1]["msg"] in ("process_completed", "close_stream"):
                        break
        assert told[-1].get("success", True), told[-1]
        return told

    def stay(self, *, ask: bool = True) -> None:
        """Come, watch, ask, and leave."""
        self.event("enter", self._tab)
        place = self._web.post("/mmkv/place").json()
        assert place == {"position": 0}
        sent = self._web.post(
            "/mmkv/upload", content=SAMPLE_VIDEO.read_bytes(), headers={"x-mmkv-name": "a.mp4"}
        )
        assert sent.status_code == 200, sent.text
        (visit,) = [v for v in self._running.visits if v.key.tab == self._tab]
        visit.session.watch.rush()  # type: ignore[union-attr]
        until(lambda: visit.session.watch and visit.session.watch.encoded)
        if ask:
            self.event("ask", {}, "What is there now?", "encoded")
            self.event("stop")
        self._running.registry.leave(self._page)
        self._web.close()
        until(lambda: visit.session.ended)


def held() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    from gradio.state_holder import SessionState

    process = psutil.Process()
    children = [one for one in process.children() if one.status() != psutil.STATUS_ZOMBIE]
    return {
        "threads": threading.active_count(),
        "descriptors": process.num_fds(),
        "processes": len(children),
        "pages": sum(type(one) is SessionState for one in gc.get_objects()),
        "bytes": process.memory_info().rss,
    }


def come_and_go(running: Running, first: int, count: int) -> None:
    for number in range(first, first + count):
        Visitor(running, number).stay()
    until(lambda: not running.visits)


def check(running: Running, count: int, spare: int) -> None:
    """Let some visitors come and go, then more, and compare what is held."""
    earlier = held()["pages"]  # of other tests' servers
    come_and_go(running, 0, 2)
    before = held()
    come_and_go(running, 100, count)
    until(lambda: held()["threads"] <= before["threads"] + 3, 60)
    until(lambda: held()["descriptors"] <= before["descriptors"] + 8, 60)
    after = held()
    print(json.dumps({"visitors": count, "before": before, "after": after}))
    assert after["processes"] == before["processes"] == 0
    assert after["pages"] <= earlier  # a conversation is not kept there either
    assert after["bytes"] - before["bytes"] < spare
    folder = running.registry._folders.root

    def left() -> list[Path]:
        with contextlib.suppress(FileNotFoundError):  # it is being removed at this moment
            files = [one for one in folder.rglob("*") if one.is_file() and one.name != "lock"]
            return [one for one in files if os.path.getsize(one)]
        return [folder]

    until(lambda: not left())  # a visit is over before its files are gone
    assert running.registry._pages == {}


def test_three_visitors_leave_nothing_behind(running: Running) -> None:
    check(running, 3, 60_000_000)


@pytest.mark.slow
def test_fifty_visitors_leave_nothing_behind(running: Running) -> None:
    check(running, 50, 60_000_000)
