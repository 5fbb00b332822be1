"""Waiting for what other threads and processes bring about.

A machine that tests is busy: a thread may stand still for seconds at any line. So a test waits for
what it claims, up to PATIENCE, which only what never comes uses up; it neither sleeps until
something has probably happened nor takes the time of what it does.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

PATIENCE = 240.0  # seconds

T = TypeVar("T")


def until(what: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Wait until `what` is true; its value."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.005)
    return found


def finish(*threads: threading.Thread) -> None:
    """Wait until threads have ended."""
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} has not ended within {PATIENCE} s"


def by_itself(work: Callable[[], object]) -> None:
    """Do something that waits for nobody: where it does all the same, fail instead of hanging."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    finish(thread)
    for error in failed:
        raise error


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """What is started here can be interrupted, even where a shell's `&` had the tests ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
