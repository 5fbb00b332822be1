"""One visitor's stay: whose it is, which pages show it, and what it is waiting for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from mmkv.demos.app.session import Session

log = logging.getLogger("mmkv.demo")


@dataclass(frozen=True, slots=True)
class Key:
    """Whose session it is.

    Attributes:
        visitor: the browser's secret cookie.
        tab: the tab's own secret.
        user: the name that was used to log in, if any.
    """

    visitor: str = field(repr=False)
    tab: str = field(repr=False)
    user: str | None = None


@dataclass(slots=True)
class Visit:
    """A session and its pages.

    Attributes:
        key: whose it is.
        session: the session.
        pages: pages that show it, and what each was sent last.
        gone: those that were closed.
        placed: whether it has a place.
        leaving: whether its place is being given back.
        left: when the last page was closed; None while one is open.
        wanted: what to start when it gets a place.
        why: why it lost its place.
        follower: of the handlers that show an answer as it arrives, the newest; others end.
    """

    key: Key
    session: Session
    pages: dict[str, dict[str, object]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    placed: bool = False
    leaving: bool = False
    left: float | None = None
    wanted: Callable[[], None] | None = None
    why: str = ""
    follower: object = None


class Busy(Exception):
    """All places are taken.

    Attributes:
        position: in the queue, counted from 1.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"busy, position {position}")
        self.position = position


def end(session: Session) -> None:
    """End a session; what goes wrong is logged."""
    try:
        session.end()
    except Exception:
        log.exception("a session did not end well")


def quietly(begin: Callable[[], None]) -> None:
    """Start a video; what goes wrong is logged, and the session keeps it for its page to show."""
    try:
        begin()
    except Exception as error:
        log.info("a video was not started: %s", error)
