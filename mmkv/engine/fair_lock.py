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
    Re-entrant: a thread that has the turn may take it again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # the first has the turn; weak, so that a thread torn out of here by an interrupt drops out
        self._queue: deque[weakref.ref[_Ticket]] = deque()

    @contextmanager
    def hold(self, cancel: threading.Event | None = None) -> Iterator[None]:
        """Wait for the turn and hold it.

        Raises:
            Cancelled: `cancel` was set before the turn came.
        """
        with self._changed:
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
            self._leave(ticket)

    @property
    def waiting(self) -> int:
        """How many wait behind the one that has the turn."""
        return max(0, len(self._queue) - 1)

    def _take(self, ticket: _Ticket, cancel: threading.Event | None) -> None:
        with self._changed:
            self._queue.append(weakref.ref(ticket))
            while self._first() is not ticket:
                if cancel is not None and cancel.is_set():
                    raise Cancelled
                # neither a cancel event nor a lost ticket notifies, so look now and then
                self._changed.wait(0.05 if cancel is not None else 0.5)

    def _leave(self, ticket: _Ticket) -> None:
        with self._changed:
            kept = [held for held in self._queue if held() not in (ticket, None)]
            self._queue = deque(kept)
            self._changed.notify_all()

    def _first(self) -> _Ticket | None:
        while self._queue:
            ticket = self._queue[0]()
            if ticket is not None:
                return ticket
            self._queue.popleft()
        return None


class _Ticket:
    """A thread's place in the queue."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


def lock_of(model: nn.Module) -> FairLock:
    """Return the one lock of a model, however often the model was wrapped."""
    with _lock:
        return _of_models.setdefault(model, FairLock())
