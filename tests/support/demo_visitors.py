"""What the tests of the demo share: a server's registry with its own clock, and waiting."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from waiting import until

import mmkv
from mmkv.demos.app.folders import Folders
from mmkv.demos.app.limits import Limits
from mmkv.demos.app.registry import Registry
from mmkv.demos.app.settings import Settings
from mmkv.demos.app.visit import Key, Visit

FAST = Settings(rush=True)


@functools.cache
def tiny() -> Any:
    """The bundled model, loaded once for all tests of a process."""
    return mmkv.load("mmkv-tiny")


class Clock:
    """Seconds that a test moves on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A registry without a page in front of it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.clock = Clock()
        self.folders = Folders(folder)
        self.registry = Registry(
            tiny(), self.folders, Limits(**limits), settings=FAST, clock=self.clock
        )

    def visit(self, name: str) -> Visit:
        """A visitor's page, opened."""
        return self.registry.enter(Key(f"visitor {name}", f"tab of {name}"), f"page of {name}")

    def close(self) -> None:
        self.registry.close()


def answered(exchange: Any) -> Any:
    """The exchange, once it is over."""
    until(lambda: exchange.over)
    return exchange
