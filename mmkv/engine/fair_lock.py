"""First come, first served: whose turn it is on a device, or on a stream."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_lock = threading.Lock()
_of_models: weakref.WeakKeyDictionary[nn.Module, FairLock] = weakref.WeakKeyDictionary()


class Cancelled(Exception):
    """The work was cancelled while it waited or ran."""


class FairLock:
    """A fair lock: threads get it in the order in which they asked.

    An ordinary lock can starve a question while an encoder takes and frees it in a loop.
    Re-entrant: a thread that has the turn may take it again. Wherever an interrupt tears a thread
    out of here, others go on: nothing is locked by a method written in Python, which could be
    interrupted between locking and returning.
    """

    def __init__(self) -> None:
        # re-entrant, since collecting garbage may end a forgotten turn in here
        self._lock = threading.RLock()
        # the first has the turn; weak, so that a thread torn out of here by an interrupt drops out
        self._queue: deque[weakref.ref[_Ticket]] = deque()

    @contextmanager
    def hold(self, cancel: threading.Event | None = None) -> Iterator[None]:
        """Wait for the turn and hold it.

        Raises:
            Cancelled: `cancel` was set before the turn came.
        """
        with self._lock:
            first = self._first()
        if first is not None and first.thread == threading.get_ident():
            yield  # the outer call gives it back
            return
        del first
        ticket = _Ticket()
        try:
            self._take(ticket, cancel)
            yield
        finally:
            ticket.over = True  # enough for the others, if an interrupt keeps us from the rest
            self._leave()

    @property
    def waiting(self) -> int:
        """How many wait behind the one that has the turn."""
        return max(0, len(self._queue) - 1)

    def _take(self, ticket: _Ticket, cancel: threading.Event | None) -> None:
        with self._lock:
            self._queue.append(weakref.ref(ticket))
        while True:
            with self._lock:
                if self._first() is ticket:
                    return
            if cancel is not None and cancel.is_set():
                raise Cancelled
            # neither a cancel event nor a lost ticket wakes anybody, so look now and then
            ticket.woken.acquire(timeout=0.05 if cancel is not None else 0.5)

    def _leave(self) -> None:
        with self._lock:
            self._queue = deque(held for held in self._queue if not _is_over(held()))
            first = self._first()
            if first is not None and first.woken.locked():
                first.woken.release()

    def _first(self) -> _Ticket | None:
        while self._queue:
            ticket = self._queue[0]()
            if ticket is not None and not ticket.over:
                return ticket
            self._queue.popleft()
        return None


class _Ticket:
    """A thread's place in the queue.

    Attributes:
        over: whether its turn has ended, or will not come.
        woken: locked while it has nothing to look at.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.over = False
        self.woken = threading.Lock()
        self.woken.acquire()


def _is_over(ticket: _Ticket | None) -> bool:
    return ticket is None or ticket.over


def lock_of(model: nn.Module) -> FairLock:
    """Return the one lock of a model, however often the model was wrapped."""
    with _lock:
        return _of_models.setdefault(model, FairLock())
