"""Pages that wait to be written, the thread that writes them, and how that ends."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.pages import Page
from mmkv.store.writer import Writer

log = logging.getLogger("mmkv.store")


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


class Backlog:
    """What a stream's queue and its thread share; the thread holds nothing of the stream.

    Args:
        written: called after every page.
        room: bytes that may wait.
        at_exit: hands over what it can of the open page.
    """

    def __init__(
        self,
        writer: Writer,
        written: Callable[[], None],
        room: int,
        at_exit: weakref.WeakMethod[Callable[[], None]] | None,
    ) -> None:
        self.writer = writer
        self.at_exit = at_exit
        self.process = os.getpid()
        self.closed = False  # by `close`
        self.seen = writer.newest  # time of the newest frame that the archive has
        self.written = written
        self.room = room
        self.jobs: deque[Job] = deque()
        self.waiting = 0
        self.upto = 0
        self.sync = False
        self.begun = self.stopped = False
        self.settled = False  # whether all was on the disk when it was stopped
        self.error: Exception | None = None
        # taken by itself: an interrupt may come between a Condition's locking and its return
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.ended = threading.Event()  # an interrupt in `Thread.join` makes it forget the thread

    def stored_seconds(self) -> str:
        """Up to where the stream is stored, in words."""
        newest = self.writer.newest
        return "none" if newest is None else f"{newest:.2f} s"

    def run(self) -> None:
        """Write until `stopped`; then end the writer, so that nobody else has to come to that.

        A stream may be collected as garbage in this very thread, in the middle of writing.
        """
        with self.lock:
            if self.begun:
                return
            self.begun = True
        try:
            self._write()
        finally:
            self.jobs.clear()  # those that could not be written
            problem = self.error
            try:
                self.writer.close()
            except OSError as error:
                problem = problem or error
            self._tell(problem)
            self.ended.set()

    def _tell(self, problem: Exception | None) -> None:
        """Say what became of the frames, unless all is well."""
        folder = self.writer.folder
        if problem is not None:
            log.warning("the store %s: %s; %s", folder, problem, self.fate())
        elif not (self.closed or self.settled):
            log.warning(
                "the store %s was not closed: %s; close a stream, or open it in a `with` block",
                folder, self.fate(),
            )  # fmt: skip

    def fate(self) -> str:
        """What is stored and what is not, in words."""
        stored, seen = self.writer.newest, self.seen
        lost = seen is not None and (stored is None or seen > stored)
        said = f"frames up to {self.stored_seconds()} are stored" if stored is not None else (
            "no frames are stored"
        )  # fmt: skip
        return f"{said}, and later ones, up to {seen:.2f} s, are lost" if lost else said

    def _write(self) -> None:
        """Write what comes; an error waits until somebody has taken it."""
        while True:
            with self.lock:
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
                with self.lock:
                    self.error = error
                    self.changed.notify_all()
                continue
            with self.lock:
                if job is None:
                    self.sync = False
                else:
                    self.jobs.popleft()
                    self.waiting -= job.page.nbytes
                self.changed.notify_all()


def stop(state: Backlog, thread: threading.Thread) -> None:
    """End writing: at `close`, when the stream is dropped, or when the process ends."""
    if os.getpid() != state.process:
        return  # a copy of the process that writes: neither the thread nor the files are its own
    settled = not state.jobs and state.writer.settled and state.seen == state.writer.newest
    hand_over = None if state.closed or state.at_exit is None else state.at_exit()
    if hand_over is not None:  # the process ends while the stream is there
        try:
            hand_over()
        except Exception as error:  # what was stored is said at the end
            log.debug("the store %s: %s", state.writer.folder, error)
    with state.lock:
        state.settled, state.stopped = settled, True
        state.changed.notify_all()
    if thread is threading.current_thread():
        return
    if thread.ident is None:  # an interrupt came before its start
        state.run()
    if state.ended.wait(60):
        if thread.ident is not None:
            thread.join(1.0)  # it has nothing left to do
    else:  # its files stay open: it is in the middle of writing
        log.warning(
            "the store %s: the disk has not answered for 60 s; %s",
            state.writer.folder, state.fate(),
        )  # fmt: skip
