"""Keeps a worker process: starts it, listens to it, ends it when a video hangs or crashes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from mmkv.demos.captioning.job import CaptioningError, Failure, Job
from mmkv.demos.captioning.listing import Video

STALL = 600.0  # seconds without a frame or a token
WORKER = "mmkv.demos.captioning.worker"  # what the process runs
TRIES = 2  # of a video, or of loading the model, where the process dies
_READY = 10.0  # seconds in which a worker that has been asked to end does so

Report = Callable[[float, float | None], None]  # seconds reached, duration if known


class Supervisor:
    """Captions videos in a process of its own, which keeps the model until it has to be killed.

    Args:
        job: what is the same for every video.
        timeout: seconds that one video may take in all; None: no limit.
        stall: seconds without a new frame or token after which it counts as hanging.

    Raises:
        CaptioningError: from `start` and `caption`, where the model cannot be loaded.
    """

    def __init__(self, job: Job, *, timeout: float | None = None, stall: float = STALL) -> None:
        self._job = job
        self._timeout = timeout
        self._stall = stall
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the process and wait for its model, if it is not running.

        Where the process dies while it loads the model, it is started once more.

        Raises:
            CaptioningError: the model cannot be loaded.
        """
        if self._process is not None:
            return
        for _ in range(TRIES):
            ended = self._launch()
            if ended is None:
                return
        raise CaptioningError(
            f"the process that holds {self._job.model} {ended} while loading it ({TRIES} times)"
        )

    def _launch(self) -> str | None:
        """Start the process; how it ended before its model was loaded, in words, if it did."""
        ours, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", WORKER]
        # inherited: Ctrl-C is for the run to handle, even while the worker is importing
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _real(sys.stderr) else subprocess.DEVNULL,
                stderr=None if _real(sys.stderr) else subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._connection = ours
        try:
            ours.send(self._job)
            kind, text = ours.recv()
        except (EOFError, OSError):
            return self._ended()
        if kind != "ready":
            self.close()
            raise CaptioningError(text)
        return None

    def caption(
        self, video: Video, following: Video | None = None, report: Report | None = None
    ) -> dict[str, Any] | Failure:
        """Caption a video.

        Where the process dies, the video is tried once more alone: whatever killed it may not come
        again. Where it hangs or runs out of memory while `following` is read ahead, that may be to
        blame, and the video is tried once more alone, too.

        Args:
            video: what to caption.
            following: the video that comes next, to be decoded meanwhile.
            report: called with progress.

        Returns:
            the video's row, or why there is none.

        Raises:
            CaptioningError: the model cannot be loaded.
        """
        found = self._try(video, following, report)
        if not isinstance(found, Failure):
            return found
        if found.kind == "died" or (following and found.kind in ("stalled", "memory")):
            return self._try(video, None, report)
        return found

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            try:
                self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._connection = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _try(
        self, video: Video, following: Video | None, report: Report | None
    ) -> dict[str, Any] | Failure:
        self.start()
        assert self._connection is not None
        began = heard = time.monotonic()
        reached = 0.0
        sent = False
        while True:
            limits = [(heard + self._stall, "stalled")]
            if self._timeout is not None:
                limits.append((began + self._timeout, "timeout"))
            until, kind = min(limits)
            try:
                if not sent:
                    self._connection.send((video, following))
                    sent = True
                if not self._connection.poll(max(0.0, until - time.monotonic())):
                    self._kill()
                    return Failure(kind, self._late(kind, reached))
                what, value = self._connection.recv()
            except (EOFError, OSError):
                return Failure("died", f"the process that captioned it {self._ended()}")
            heard = time.monotonic()
            if what != "at":
                found: dict[str, Any] | Failure = value
                if isinstance(found, Failure) and _spoiled(found):
                    self._kill()
                return found
            reached = value[0]
            if report is not None:
                report(*value)

    def _late(self, kind: str, reached: float) -> str:
        if kind == "timeout":
            return (
                f"not done after {self._timeout:g} s (--timeout), at {reached:.0f} s of the video"
            )
        return (
            f"no frame and no word for {self._stall:g} s (--stall), at {reached:.0f} s of the video"
        )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self.close()

    def _ended(self) -> str:
        """How the process ended, in words."""
        assert self._process is not None
        try:
            code = self._process.wait(_READY)
        except subprocess.TimeoutExpired:
            code = 0
        self._kill()
        if code == -9:
            return "was killed, perhaps because memory ran out"
        return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _spoiled(failure: Failure) -> bool:
    """Whether the process is of no use any more: its device is unusable, or its memory full."""
    return failure.kind == "memory" or "CUDA error" in failure.reason


def _real(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
