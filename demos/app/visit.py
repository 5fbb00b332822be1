"""One visitor's stay: whose it is, which pages show it, and what it waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from mmkv.demos.app.session import Session

log = logging.getLogger("mmkv.demo")


@dataclass(frozen=True, slots=True)
class Key:
    """Whose session it is. visitor: the browser's secret cookie. tab: the tab's own secret.
    user: the name that was logged in with, if any.
    """

    visitor: str = field(repr=False)
    tab: str = field(repr=False)
    user: str | None = None


@dataclass(slots=True)
class Visit:
    """A session. pages: that show it, and what each was last told. gone: those that were closed.
    left: when the last one was. leaving: its place is being given back. wanted: what it starts when
    it gets a place. why: it lost it.
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


class Busy(Exception):
    """All places are taken. position: in the line, from 1 on."""

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
    """Start a video; the session keeps what went wrong for its page to say."""
    try:
        begin()
    except Exception as error:
        log.info("a video was not started: %s", error)
