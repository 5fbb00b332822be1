"""Ctrl-C at a chosen moment: a signal whose handler raises KeyboardInterrupt in the main thread."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes, uninterrupted."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interrupted(work: Callable[[], object], after: float) -> bool:
    """Do something, and interrupt it.

    Args:
        work: to be called in the main thread.
        after: seconds from its start.

    Returns:
        whether it was interrupted; it may have ended before.
    """
    armed = True

    def strike(number: int, frame: object) -> None:
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(after, 1e-6))
        work()
        armed = False
        return False
    except KeyboardInterrupt:
        return True
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
