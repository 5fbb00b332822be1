"""Live sources: one thread per source, newest frame first, reconnecting on its own."""

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmkv.video.errors import VideoError
from mmkv.video.liveclock import LiveClock
from mmkv.video.mailbox import Mailbox
from mmkv.video.sampling import LiveSampler
from mmkv.video.source import Frame, FrameSource

log = logging.getLogger("mmkv.video")

# Given "was it stopped?", connects and yields (the stream's time or None, how to get the frame).
# Returns when the stream ends, raises VideoError when it cannot continue.
Connect = Callable[[Callable[[], bool]], Iterator[tuple[float | None, Callable[[], Frame]]]]

_JOIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a live source reconnects after its connection is lost.

    Attributes:
        attempts: attempts in a row before giving up; None: never give up, 0: do not try.
        first_wait: seconds before the first attempt; doubled for each further one.
        max_wait: longest wait between two attempts, in seconds.

    Raises:
        ValueError: a field is out of range.
    """

    attempts: int | None = None
    first_wait: float = 0.5
    max_wait: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts is not None and (
            not isinstance(self.attempts, int)
            or isinstance(self.attempts, bool)
            or self.attempts < 0
        ):
            raise ValueError(
                f"Reconnect.attempts must be None or an int of at least 0; got {self.attempts!r}"
            )
        for name in ("first_wait", "max_wait"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise ValueError(f"Reconnect.{name} must be at least 0 seconds; got {value!r}")

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait before attempt number `attempt`, counted from 1."""
        return min(self.max_wait, self.first_wait * 2.0 ** min(attempt - 1, 60))


class LiveSource(FrameSource):
    """Frames of a camera or stream as they arrive; a slow reader gets the newest one.

    Opening waits for the first frame, so a wrong address fails at once. After that, a lost
    connection is retried as `reconnect` says.

    Args:
        name: what to call it in messages.
        connect: opens one connection, see `Connect`.
        fps: frames per second to choose; None for all.
        reconnect: how often to retry.
        ends: whether a connection that ends without an error is the end, and not retried.

    Raises:
        VideoError: on opening, there is no first frame; while reading, reconnecting was given up.
    """

    live = True

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        fps: float | None,
        reconnect: Reconnect,
        ends: bool = False,
    ) -> None:
        self.name = name
        self._worker = worker = _Worker(name, connect, fps, reconnect, ends)
        weakref.finalize(self, worker.stop)
        try:
            worker.ready.wait()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if worker.refused is not None:
            self.close()
            raise worker.refused

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        while (item := self._worker.mailbox.get()) is not None:
            yield item

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """Chosen frames that were replaced by newer ones before the reader took them."""
        return self._worker.mailbox.dropped

    @property
    def reconnects(self) -> int:
        """How many times the connection was lost and restored."""
        return self._worker.reconnects

    def close(self) -> None:
        """Stop, and close the connection."""
        super().close()
        self._worker.stop()


class _Worker:
    """The thread's side; holds no reference to the source, so that a forgotten one is collected."""

    def __init__(
        self, name: str, connect: Connect, fps: float | None, reconnect: Reconnect, ends: bool
    ) -> None:
        self.name = name
        self._ends = ends
        self.mailbox = Mailbox()
        self.ready = threading.Event()
        self.refused: BaseException | None = None
        self.reconnects = 0
        self._connect = connect
        self._reconnect = reconnect
        self._sampler = LiveSampler(fps)
        self._clock = LiveClock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mmkv {name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self.mailbox.close()
        # A thread inside a hanging network call ends with that call's timeout; do not wait for it.
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            error = self._keep_connected()
        except BaseException as caught:  # whatever it is, the reader gets it
            error = caught
        if not self.ready.is_set():
            self.refused = error or VideoError(f"{self.name}: it ended before its first frame")
        self.mailbox.end(error)
        self.ready.set()

    def _keep_connected(self) -> VideoError | None:
        failures = 0
        while True:
            frames, cause = self._read_once(bool(failures))
            if self._stopped.is_set():
                return None
            if not self.ready.is_set() or (self._ends and frames and cause is None):
                return cause
            failures = 1 if frames else failures + 1
            limit = self._reconnect.attempts
            if limit is not None and failures > limit:
                if limit == 0:
                    return cause
                return VideoError(
                    f"{self.name}: the connection was lost and {limit} attempts to reconnect "
                    f"failed: {_reason(self.name, cause)}"
                )
            wait = self._reconnect.wait(failures)
            log.warning(
                "%s: the connection was lost (%s); attempt %d in %.1f s",
                self.name,
                _reason(self.name, cause),
                failures,
                wait,
            )
            if self._stopped.wait(wait):
                return None

    def _read_once(self, again: bool) -> tuple[int, VideoError | None]:
        """One connection: how many frames it gave, and why it broke (None if it just ended)."""
        self._clock.restart()
        count = 0
        frames = self._connect(self._stopped.is_set)
        try:
            for stamp, picture in frames:
                if self._stopped.is_set():
                    break
                seconds = self._clock.seconds(stamp, time.monotonic())
                if count == 0 and again:
                    self.reconnects += 1
                    log.info("%s: connected again", self.name)
                count += 1
                if self._sampler.wants(seconds):
                    self.mailbox.put(seconds, picture())
                self.ready.set()
        except VideoError as error:
            return count, error
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()
        return count, None


def _reason(name: str, cause: VideoError | None) -> str:
    return str(cause).removeprefix(f"{name}: ") if cause else "the stream ended"
