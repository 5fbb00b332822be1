"""All sessions of a server: who has a place, who is waiting for one, and who has left."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmkv.demos.app.folders import Folders
from mmkv.demos.app.hosts import AllowedHosts
from mmkv.demos.app.limits import Limits
from mmkv.demos.app.session import Session
from mmkv.demos.app.settings import Settings
from mmkv.demos.app.visit import Busy, Key, Visit, end, quietly

if TYPE_CHECKING:
    from mmkv import VideoLM

log = logging.getLogger("mmkv.demo")

PERIOD = 0.5  # seconds between two rounds of measuring and ending sessions
UNSEEN = 180.0  # seconds without any sign of a page; hidden tabs send one a minute
PAGES = 20  # open pages that one browser may have
VISITS = 500  # open pages of all browsers together


class Registry:
    """Sessions by the secrets of those who made them.

    A visitor gets a place when the first video is chosen and gives it back by leaving, by deleting
    everything, or after `Limits.idle_seconds` without a sign. Places are given in the order in
    which they were asked for.

    Args:
        vlm: the model of all sessions.
        folders: where sessions keep their files.
        limits: None for the defaults.
        hosts: network addresses that visitors may watch; None for none.
        settings: a new visitor's choices.
        clock: seconds that only rise.

    Attributes:
        forget_page: called with the hash of each page that will not be used again.
    """

    def __init__(
        self,
        vlm: VideoLM,
        folders: Folders,
        limits: Limits | None = None,
        hosts: AllowedHosts | None = None,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.vlm = vlm
        self.limits = limits or Limits()
        self.hosts = hosts or AllowedHosts()
        self.settings = settings or Settings()
        self.forget_page: Callable[[str], None] = lambda page: None
        self._folders = folders
        self._clock = clock
        self._lock = threading.RLock()
        self._visits: dict[Key, Visit] = {}
        self._pages: dict[str, Visit] = {}
        self._line: list[Visit] = []
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Measure streams and end sessions in the background until `close`."""
        self._thread = threading.Thread(target=self._run, name="mmkv-demo", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every session and delete everything."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(5.0)
        with self._lock:
            visits = list(self._visits.values())
            self._visits, self._pages, self._line = {}, {}, []
        for visit in visits:
            end(visit.session)
        self._folders.close()

    def enter(self, key: Key, page: str) -> Visit:
        """Open or reload a page.

        Args:
            key: whose session it shows.
            page: the page's hash.

        Returns:
            the visit, new or as it was left.
        """
        with self._lock:
            visit = self._visits.get(key)
            if visit is None:
                folder = self._folders.new()
                session = Session(
                    self.vlm, folder, self.limits, self.hosts, self.settings, self._clock
                )
                visit = self._visits[key] = Visit(key, session)
                self._drop_surplus(key)
            for closed in visit.gone:
                visit.pages.pop(closed, None)
                self._pages.pop(closed, None)
                self.forget_page(closed)
            visit.gone.clear()
            visit.left = None
            visit.pages[page] = {}
            visit.session.seen = self._clock()
            self._pages[page] = visit
            return visit

    def of_page(self, page: str, visitor: str) -> Visit | None:
        """Find the visit that a page shows, if this visitor opened it."""
        with self._lock:
            visit = self._pages.get(page)
            return visit if visit is not None and visit.key.visitor == visitor else None

    def of_tab(self, visitor: str, tab: str) -> Visit | None:
        """Find the visit of a visitor's tab."""
        with self._lock:
            found = [v for k, v in self._visits.items() if (k.visitor, k.tab) == (visitor, tab)]
            return found[0] if found else None

    def of_video(self, visitor: str, token: str) -> Visit | None:
        """Find the visit whose video has this token, if it is this visitor's."""
        with self._lock:
            for key, visit in self._visits.items():
                watch = visit.session.watch
                if key.visitor == visitor and watch is not None and watch.video.token == token:
                    return visit
            return None

    def leave(self, page: str) -> None:
        """Note that a page was closed, is being reloaded, or lost its connection for a moment."""
        with self._lock:
            visit = self._pages.get(page)
            if visit is not None:
                visit.gone.add(page)
                if visit.gone >= visit.pages.keys():
                    visit.left = self._clock()

    def here(self, page: str) -> None:
        """Note that a page has its connection, for the first time or again."""
        with self._lock:
            visit = self._pages.get(page)
            if visit is not None:
                visit.gone.discard(page)
                visit.left = None

    def place(self, visit: Visit, wanted: Callable[[], None] | None = None) -> None:
        """Give a visit a place, or put it in the queue.

        Args:
            visit: who wants a place.
            wanted: what to begin, once, when the visit gets a place later.

        Raises:
            Busy: none is free; the visit is now in the queue.
        """
        with self._lock:
            visit.session.touch()
            visit.why = ""
            visit.wanted = None
            if visit.placed:
                return
            if visit not in self._line:
                self._line.append(visit)
            self._give()
            if not visit.placed:
                visit.wanted = wanted
                raise Busy(self._line.index(visit) + 1)

    def begin(self, visit: Visit, start: Callable[[], None]) -> None:
        """Start a video for a visit that has a place, and still has it once that is done.

        Args:
            visit: whose video it is.
            start: starts it.

        Raises:
            ValueError: it cannot be started, or the place was given back meanwhile.
        """
        start()
        with self._lock:
            if visit.placed and not visit.leaving:
                return
        visit.session.forget()
        raise ValueError("Everything was deleted in the meantime; choose a video again.")

    def position(self, visit: Visit) -> int:
        """Return a visit's position in the queue, counted from 1; 0 if it is not waiting."""
        with self._lock:
            return self._line.index(visit) + 1 if visit in self._line else 0

    def release(self, visit: Visit, why: str = "") -> None:
        """Give a place back, or leave the queue, and delete what the session holds.

        Args:
            visit: whose place it is.
            why: "idle" where the visitor did not ask for it.
        """
        with self._lock:
            if visit in self._line:
                self._line.remove(visit)
            visit.wanted = None
            visit.why = why
            visit.leaving = True
        try:
            visit.session.forget()
        finally:
            with self._lock:
                visit.placed = visit.leaving = False
                self._give()

    @property
    def placed(self) -> int:
        """How many places are taken."""
        with self._lock:
            return sum(visit.placed for visit in self._visits.values())

    def round(self) -> None:
        """Measure every stream once, and end sessions that were left."""
        now = self._clock()
        with self._lock:
            visits = list(self._visits.values())
        for visit in visits:
            session = visit.session
            left = visit.left is not None and now - visit.left > self.limits.leave_seconds
            if left or now - session.seen > UNSEEN:
                self._end(visit)
            elif visit.placed and now - session.active > self.limits.idle_seconds:
                self.release(visit, "idle")
            elif session.watch is not None:
                try:
                    session.watch.measure()
                except ValueError:  # closed just now
                    continue
        with self._lock:
            self._give()

    def _run(self) -> None:
        while not self._closing.wait(PERIOD):
            try:
                self.round()
            except Exception:
                log.exception("a round of measuring failed")

    def _end(self, visit: Visit) -> None:
        with self._lock:
            self._visits.pop(visit.key, None)
            for page in visit.pages:
                self._pages.pop(page, None)
                self.forget_page(page)
            if visit in self._line:
                self._line.remove(visit)
        end(visit.session)
        with self._lock:
            visit.placed = False
            self._give()

    def _give(self) -> None:
        """Give free places to those who have waited longest."""
        while self._line and self.placed < self.limits.sessions:
            visit = self._line.pop(0)
            visit.placed = True
            visit.session.touch()
            wanted, visit.wanted = visit.wanted, None
            if wanted is not None:
                threading.Thread(target=quietly, args=(wanted,), daemon=True).start()

    def _drop_surplus(self, key: Key) -> None:
        """Nobody can fill the server with pages: the oldest ones without a place go."""
        own = [v for k, v in self._visits.items() if k.visitor == key.visitor and not v.placed]
        for visit in own[: max(0, len(own) - PAGES)]:
            self._end(visit)
        if len(self._visits) <= VISITS:
            return
        free = [v for v in self._visits.values() if not v.placed and v not in self._line]
        others = [visit for visit in free if visit.key != key]
        if others:  # pages that are there give a sign each second
            self._end(min(others, key=lambda visit: visit.session.seen))
