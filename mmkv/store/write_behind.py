"""Pages on their way to the disk: written by a thread of their own, within a limited backlog."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from mmkv.archive import Archive
from mmkv.archive.blocks import CachedBlock
from mmkv.archive.pages import Page
from mmkv.store.backlog import Backlog, Job, stop
from mmkv.store.errors import StoreError
from mmkv.store.writer import Writer

BACKLOG_BYTES = 1 << 28  # of closed pages that wait to be written; beyond it, encoding waits


def write_behind(archive: Archive, writer: Writer, room: int | None = None) -> WriteBehind:
    """Write an archive's pages from now on.

    Args:
        room: bytes that may wait to be written; None: 256 MB, or a quarter of what the archive may
            have in memory.
    """
    if room is None:
        room = min(BACKLOG_BYTES, (archive.limit or 4 * BACKLOG_BYTES) // 4)
    sink = WriteBehind(
        writer, archive.trim, room, weakref.WeakMethod(archive.hand_over_unless_busy)
    )
    archive.write_to(sink)
    return sink


class WriteBehind:
    """The queue in front of a store's writer, as the archive's `PageSink`.

    Args:
        written: called after every page, in the writing thread.
        room: bytes that may wait to be written.
        at_exit: hands over what it can of the open page, where the process ends without `close`.
    """

    def __init__(
        self,
        writer: Writer,
        written: Callable[[], None],
        room: int,
        at_exit: weakref.WeakMethod[Callable[[], None]] | None = None,
    ) -> None:
        self._state = Backlog(writer, written, room, at_exit)
        self._thread = threading.Thread(target=self._state.run, name="mmkv-store", daemon=True)
        # what waits is still written when the stream is dropped or the process ends; known before
        # the thread is started, since an interrupt may come while that is waited for
        weakref.finalize(self, stop, self._state, self._thread)
        self._thread.start()

    @property
    def writer(self) -> Writer:
        """The store's writer."""
        return self._state.writer

    @property
    def pages(self) -> int:
        """Pages that wait."""
        return len(self._state.jobs)

    @property
    def nbytes(self) -> int:
        """Bytes that wait."""
        return self._state.waiting

    @property
    def first(self) -> int:
        """The oldest block that the store holds, or will hold."""
        return self._state.writer.first

    def note(self, **facts: Any) -> None:
        """Keep facts in the store's meta.json."""
        self._state.writer.note(**facts)

    def saw(self, seconds: float) -> None:
        """The stream has come so far; its newest page is not handed over yet."""
        self._state.seen = seconds

    def put(self, page: Page, blocks: Sequence[CachedBlock], summaries: bytes, keep: int) -> None:
        """Hand a page over, once; never waits."""
        state, job = self._state, Job(page, blocks, summaries, keep)
        with state.lock:
            if job.page.first < state.upto:
                return
            state.upto = job.page.stop
            state.jobs.append(job)
            state.waiting += job.page.nbytes
            state.changed.notify_all()

    def make_room(self) -> None:
        """Wait until another page may be handed over.

        Raises:
            StoreError: writing failed; it is retried at the next call, and at every flush.
        """
        self._refuse_copy()
        state = self._state
        with state.lock:
            self._check()
            while state.waiting > state.room:
                state.changed.wait(0.5)
                self._check()

    def flush(self) -> None:
        """Return when every page that was handed over is on the disk.

        Raises:
            StoreError: they cannot be written.
        """
        self._refuse_copy()
        state = self._state
        with state.lock:
            self._check()
            state.sync = True
            state.changed.notify_all()
            while state.jobs or state.sync:
                state.changed.wait(0.5)
                self._check()

    def close(self) -> None:
        """Have what waits written, the thread ended and the lock released; wait for it 60 s.

        A wait that is interrupted may be repeated; the thread ends all the same.
        """
        self._state.closed = True
        stop(self._state, self._thread)

    def _refuse_copy(self) -> None:
        """Raise StoreError in a copy of the process, which has no writing thread."""
        state = self._state
        if os.getpid() != state.process:
            raise StoreError(
                f"the store {state.writer.folder} is written by process {state.process}, of which "
                "this one is a copy; open it here with mode='r'"
            )

    def _check(self) -> None:
        """Raise what went wrong, and let the writing thread try again."""
        state = self._state
        error = state.error
        if error is not None:
            state.error = None
            state.changed.notify_all()
            raise StoreError(
                f"the store {state.writer.folder} cannot be written: {error}; frames up to "
                f"{state.stored_seconds()} are stored, later ones wait in memory; fix the cause "
                "and continue, or close the stream and lose them"
            ) from error
