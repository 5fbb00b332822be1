"""A demo server and a headless browser for the tests of the page."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE, finish, until

from mmkv.demos.app.folders import Folders
from mmkv.demos.app.limits import Limits
from mmkv.demos.app.registry import Registry
from mmkv.demos.app.server import Serving, server
from mmkv.demos.app.visit import Visit
from mmkv.demos.app.watch import Watch

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP demo.test 127.0.0.1",
]


class Running:
    """A server in a thread of the test's process."""

    def __init__(self, vlm: Any, folder: Path, users: Any = (), **limits: Any) -> None:
        folders = Folders(folder)
        self.registry = Registry(vlm, folders, Limits(**limits))
        serving = Serving(port=0, users=users, names=["demo.test"])
        self._listening = serving.listen()
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = server(self.registry, serving, folders.root)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listening]}, daemon=True
        )
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started

    @property
    def visits(self) -> list[Visit]:
        """Everybody who is there."""
        return list(self.registry._visits.values())

    @property
    def watching(self) -> Visit:
        """The one who watches a video."""
        (visit,) = [visit for visit in self.visits if visit.session.watch is not None]
        return visit

    @property
    def watches(self) -> list[Watch]:
        """The videos that are watched."""
        found = [visit.session.watch for visit in self.visits]
        return [watch for watch in found if watch is not None]

    def empty(self) -> None:
        """Send every visitor away."""
        for visit in self.visits:
            self.registry._end(visit)

    def close(self) -> None:
        self._server.should_exit = True
        finish(self._thread)


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium under Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=1000 * PATIENCE
        )
        yield browser
        browser.close()


class Page:
    """A page of the demo and what a visitor does on it."""

    def __init__(self, context: Any, running: Running, url: str = "") -> None:
        self.running = running
        self.raw = context.new_page()
        self.raw.set_default_timeout(1000 * PATIENCE)
        self.asked: list[str] = []  # every address that the page wanted
        self.raw.on("request", lambda request: self.asked.append(request.url))
        self.raw.goto(url or running.url)

    def ready(self) -> Page:
        """The page has been told what there is."""
        self.raw.wait_for_selector("#mm-sample:visible")
        self.raw.wait_for_selector(".mm-gauge")
        return self

    def fast(self) -> Page:
        """Encode as fast as possible, and answer from all of it."""
        self.raw.click("#mm-settings button >> nth=0")
        self.raw.get_by_label("As fast as possible").check()
        self.raw.get_by_label("All that is encoded").check()
        until(lambda: any(v.session.settings.rush for v in self.running.visits))
        return self

    def begun(self) -> Page:
        """Something of every video has been encoded, so that there is something to ask about."""
        until(lambda: min((watch.feed.encoded for watch in self.running.watches), default=0))
        return self

    def upload(self, path: Path) -> None:
        with self.raw.expect_file_chooser() as chooser:
            self.raw.click("#mm-upload")
        chooser.value.set_files(path)

    def see(self, text: str) -> None:
        """Wait until the page says it."""
        self.raw.get_by_text(text).first.wait_for()

    def ask(self, question: str) -> None:
        self.raw.fill("#mm-question textarea", question)
        self.raw.click("#mm-go")

    def answered(self, question: str) -> str:
        """Ask, and wait for the whole answer."""
        before = self.raw.locator("#mm-chat .bot").count()
        self.ask(question)
        whole = self.raw.wait_for_function(
            "([before]) => { const all = [...document.querySelectorAll('#mm-chat .bot')];"
            r" const text = all.length > before && all.pop().innerText;"
            r" return /as\sof/.test(text) && text; }",
            arg=[before],
        )
        self.raw.wait_for_selector("#mm-go:visible")
        return str(whole.json_value())

    def gauge(self, name: str) -> str:
        return str(self.raw.inner_text(f"[data-gauge={name}] b"))

    def reads(self, name: str, ending: str) -> None:
        """Wait until a gauge shows a value that ends like this."""
        self.raw.wait_for_function(
            "([name, ending]) => document.querySelector(`[data-gauge=${name}] b`)"
            ".innerText.endsWith(ending)",
            arg=[name, ending],
        )

    def time(self) -> float:
        """Where the player is."""
        return float(self.raw.evaluate("document.getElementById('mm-video')?.currentTime ?? -1"))

    def fits(self, width: int) -> None:
        """Wait until nothing has to be scrolled to sideways."""
        self.raw.wait_for_function(
            "([width]) => document.documentElement.scrollWidth <= width", arg=[width]
        )
