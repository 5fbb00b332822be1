"""Pages on their way to the disk: written by a thread of their own, within a limited backlog."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmkv.archive import Archive
from mmkv.archive.blocks import CachedBlock
from mmkv.archive.pages import Page
from mmkv.store.errors import StoreError
from mmkv.store.writer import Writer

log = logging.getLogger("mmkv.store")

BACKLOG_BYTES = 1 << 28  # of closed pages that wait to be written; beyond it, encoding waits


@dataclass(frozen=True, slots=True)
class Job:
    """A page to be written.

    Attributes:
        keep: blocks from this number on stay in the store.
    """

    page: Page
    blocks: Sequence[CachedBlock]
    summaries: bytes
    keep: int


def write_behind(archive: Archive, writer: Writer, room: int | None = None) -> WriteBehind:
    """Write an archive's pages from now on.

    Args:
        room: bytes that may wait to be written; None: 256 MB, or a quarter of what the archive may
            have in memory.
    """
    if room is None:
        room = min(BACKLOG_BYTES, (archive.limit or 4 * BACKLOG_BYTES) // 4)
    sink = WriteBehind(writer, archive.trim, room, weakref.WeakMethod(archive.flush_unless_busy))
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
        at_exit: weakref.WeakMethod[Callable[[], object]] | None = None,
    ) -> None:
        self._state = _State(writer, written, room, at_exit)
        self._thread = threading.Thread(target=self._state.run, name="mmkv-store", daemon=True)
        self._thread.start()
        # what waits is still written when the stream is dropped or the process ends
        weakref.finalize(self, _stop, self._state, self._thread)

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
        with state.changed:
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
        state = self._state
        with state.changed:
            self._check()
            while state.waiting > state.room:
                state.changed.wait(0.5)
                self._check()

    def flush(self) -> None:
        """Return when every page that was handed over is on the disk.

        Raises:
            StoreError: they cannot be written.
        """
        state = self._state
        with state.changed:
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
        _stop(self._state, self._thread)

    def _check(self) -> None:
        """Raise what went wrong, and let the writing thread try again."""
        state = self._state
        if os.getpid() != state.process:
            raise StoreError(
                f"the store {state.writer.folder} is written by process {state.process}, of which "
                "this one is a copy; open it here with mode='r'"
            )
        error = state.error
        if error is not None:
            state.error = None
            state.changed.notify_all()
            raise StoreError(
                f"the store {state.writer.folder} cannot be written: {error}; frames up to "
                f"{state.stored_seconds()} are stored, later ones wait in memory; fix the cause "
                "and continue, or close the stream and lose them"
            ) from error


class _State:
    """What the queue and its thread share; the thread holds nothing of the stream."""

    def __init__(
        self,
        writer: Writer,
        written: Callable[[], None],
        room: int,
        at_exit: weakref.WeakMethod[Callable[[], object]] | None,
    ) -> None:
        self.writer = writer
        self.at_exit = at_exit
        self.process = os.getpid()
        self.closed = False  # by `close`
        self.told = False  # how writing ended
        self.seen = writer.newest  # time of the newest frame that the archive has
        self.written = written
        self.room = room
        self.jobs: deque[Job] = deque()
        self.waiting = 0
        self.upto = 0
        self.sync = False
        self.stopped = False
        self.error: Exception | None = None
        self.changed = threading.Condition()

    def stored_seconds(self) -> str:
        """Up to where the stream is stored, in words."""
        newest = self.writer.newest
        return "none" if newest is None else f"{newest:.2f} s"

    def run(self) -> None:
        """Write until stopped; then end the writer, so that nobody else has to come to that."""
        try:
            self._write()
        finally:
            self.jobs.clear()  # those that could not be written
            try:
                self.writer.close()
            except OSError as error:
                self.error = self.error or error

    def _write(self) -> None:
        while True:
            with self.changed:
                while self.error is not None or not (self.jobs or self.sync or self.stopped):
                    if self.stopped:
                        return
                    self.changed.wait()
                job = self.jobs[0] if self.jobs else None
                if job is None and not self.sync:
                    return
            try:
                if job is None or job.page.stored is not None:  # written, then something failed
                    self.writer.sync()
                else:
                    self.writer.write(job.page, job.blocks, job.summaries, job.keep)
                    self.written()
            except Exception as error:
                log.warning("the store %s: %s", self.writer.folder, error)
                with self.changed:
                    self.error = error
                    self.changed.notify_all()
                continue
            with self.changed:
                if job is None:
                    self.sync = False
                else:
                    self.jobs.popleft()
                    self.waiting -= job.page.nbytes
                self.changed.notify_all()


def _stop(state: _State, thread: threading.Thread) -> None:
    """End writing: at `close`, when the stream is dropped, or when the process ends."""
    if os.getpid() != state.process:
        return  # a copy of the process that writes: neither the thread nor the files are its own
    settled = not state.jobs and state.writer.settled and state.seen == state.writer.newest
    flush = None if state.closed or state.at_exit is None else state.at_exit()
    if flush is not None:  # the process ends while the stream is there
        try:
            flush()
        except Exception as error:
            log.debug("the store %s: %s", state.writer.folder, error)
    with state.changed:
        state.stopped = True
        state.changed.notify_all()
    if thread is not threading.current_thread():
        thread.join(60)
        if thread.is_alive():  # its files stay open: it is in the middle of writing
            log.warning(
                "the store %s: the disk has not answered for 60 s; %s",
                state.writer.folder, _fate(state),
            )  # fmt: skip
            return
    if state.told:  # the stream was closed, and is dropped now
        return
    state.told = True
    if state.error is not None:
        log.warning("the store %s: %s; %s", state.writer.folder, state.error, _fate(state))
    elif not (state.closed or settled):
        log.warning(
            "the store %s was not closed: %s; close a stream, or open it in a `with` block",
            state.writer.folder, _fate(state),
        )  # fmt: skip


def _fate(state: _State) -> str:
    """What is stored and what is not, in words."""
    stored, seen = state.writer.newest, state.seen
    lost = seen is not None and (stored is None or seen > stored)
    said = f"frames up to {state.stored_seconds()} are stored" if stored is not None else (
        "no frames are stored"
    )  # fmt: skip
    return f"{said}, and later ones, up to {seen:.2f} s, are lost" if lost else said
