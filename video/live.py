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
# Returns when the stream ends, raises VideoError when it cannot go on.
Connect = Callable[[Callable[[], bool]], Iterator[tuple[float | None, Callable[[], Frame]]]]

_JOIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a live source comes back after its connection is lost.

    Attributes
    ----------
    attempts
        Attempts in a row before giving up, None for ever, 0 for none.
    first_wait
        Seconds before the first attempt; doubled for each further one.
    max_wait
        Longest wait between two attempts in seconds.
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
        """Seconds to wait before attempt number `attempt` (from 1)."""
        return min(self.max_wait, self.first_wait * 2.0 ** min(attempt - 1, 60))


class LiveSource(FrameSource):
    """Frames of a camera or stream as they come; the newest one wins over a slow reader.

    Opening waits for the first frame, so a wrong address fails at once. After that a lost
    connection is tried again as `reconnect` says.

    Raises
    ------
    VideoError
        On opening, if there is no first frame; while reading, when reconnecting was given up.
    """

    live = True

    def __init__(
        self, name: str, connect: Connect, *, fps: float | None, reconnect: Reconnect
    ) -> None:
        self.name = name
        self._worker = worker = _Worker(name, connect, fps, reconnect)
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
        """Chosen frames that were replaced by newer ones before anybody took them."""
        return self._worker.mailbox.dropped

    @property
    def reconnects(self) -> int:
        """How many times the connection was lost and came back."""
        return self._worker.reconnects

    def close(self) -> None:
        super().close()
        self._worker.stop()


class _Worker:
    """The thread's side; knows nothing of the source, so that a forgotten source is collected."""

    def __init__(
        self, name: str, connect: Connect, fps: float | None, reconnect: Reconnect
    ) -> None:
        self.name = name
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
        # A thread inside a hanging network call ends by that call's timeout; nobody waits for it.
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            error = self._keep_connected()
        except BaseException as caught:  # whatever it is belongs to the reader
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
            if not self.ready.is_set():
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
