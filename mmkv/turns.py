"""First come, first served: whose turn it is on a device, or on a stream."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_lock = threading.Lock()
_of_models: weakref.WeakKeyDictionary[nn.Module, Turns] = weakref.WeakKeyDictionary()


class Cancelled(Exception):
    """The work was given up while it waited or ran."""


class Turns:
    """A fair lock: threads get it in the order in which they asked.

    An ordinary lock can starve a question while an encoder takes and frees it in a loop.
    Re-entrant: a thread that has the turn may take it again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._owner: int | None = None
        self._depth = 0

    @contextmanager
    def turn(self, cancel: threading.Event | None = None) -> Iterator[None]:
        """Wait for the turn and hold it.

        Raises:
            Cancelled: `cancel` was set before the turn came.
        """
        me = threading.get_ident()
        again = self._owner == me
        if again:
            self._depth += 1
        try:
            if not again:
                self._take(me, cancel)
            yield
        finally:
            # not ours where the wait was given up
            if self._owner == me:
                with self._changed:
                    self._depth -= 1
                    if self._depth == 0:
                        self._owner = None
                        self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many wait behind the one that has the turn."""
        return len(self._queue)

    def _take(self, me: int, cancel: threading.Event | None) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._owner is not None or self._queue[0] is not ticket:
                    if cancel is not None and cancel.is_set():
                        raise Cancelled
                    # a cancel event notifies nobody, so look at it now and then
                    self._changed.wait(0.05 if cancel is not None else None)
                self._owner, self._depth = me, 1
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()


def turns_of(model: nn.Module) -> Turns:
    """The one queue for a model's device, however often the model was wrapped."""
    with _lock:
        return _of_models.setdefault(model, Turns())
