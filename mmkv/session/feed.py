"""A source encoded in the background."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from mmkv.encode.frames import checked

if TYPE_CHECKING:
    from mmkv.session.stream import Stream

log = logging.getLogger("mmkv.session.feed")


class Feed:
    """Encodes a source in its own thread until it ends or `stop` is called.

    Attributes:
        first: seconds, in the stream, of its first encoded frame; None before it.
        position: seconds, in the stream, of its newest encoded frame; None before the first.
        encoded: frames encoded so far.
        error: what ended the feed, or None.
    """

    def __init__(
        self,
        stream: Stream,
        source: Any,
        *,
        fps: float | None,
        reader: str,
        live: bool | None = None,
    ) -> None:
        from mmkv.video import open_source

        self._stream = stream
        self._frames = open_source(source, fps=fps, reader=reader, live=live)
        self._fps = fps
        self._stop = threading.Event()
        self._ended = threading.Event()  # an interrupt in `Thread.join` makes it forget the thread
        self._began: float | None = None
        self.first: float | None = None
        self.position: float | None = None
        self.encoded = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="mmkv-feed", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        at = "no frames yet" if self.position is None else f"at {self.position:.1f} s"
        return f"<Feed of {self._frames.name}: {at}, {'running' if self.running else 'ended'}>"

    @property
    def running(self) -> bool:
        """Whether more frames may come."""
        return not self._ended.is_set()

    @property
    def live(self) -> bool:
        """Whether the source runs in real time, whether or not it is read."""
        return bool(self._frames.live)

    @property
    def dropped(self) -> int:
        """Frames that a live source dropped because the model was slow."""
        return int(self._frames.dropped)

    @property
    def lag_seconds(self) -> float:
        """Seconds between now and the newest encoded frame of a live source; else 0."""
        if not self._frames.live or self._began is None or self.position is None:
            return 0.0
        return max(0.0, time.monotonic() - self._began - self.position)

    def stop(self, timeout: float = 10.0) -> None:
        """End the feed, and wait at most `timeout` seconds for it; encoded frames stay."""
        self._stop.set()
        self._frames.close()
        if threading.current_thread() is not self._thread and self._ended.wait(timeout):
            self._thread.join(1.0)  # it has nothing left to do

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the source has ended.

        Returns:
            whether it has ended within `timeout` seconds.

        Raises:
            Exception: what ended the feed, if it was an error.
        """
        ended = self._ended.wait(timeout)
        if self.error is not None:
            raise self.error
        return ended

    def _run(self) -> None:
        shift: float | None = None
        try:
            for item in self._frames:
                seconds, frame = checked(item)
                if self._stop.is_set():
                    break
                if shift is None:
                    shift = self._stream.continue_from(seconds, self._fps)
                if self._began is None:
                    self._began = time.monotonic() - (seconds + shift)
                self._stream.push([(seconds + shift, frame)])
                if self.first is None:
                    self.first = seconds + shift
                self.position = seconds + shift
                self.encoded += 1
        except Exception as error:
            if not self._stop.is_set():
                self.error = error
                log.warning("the feed of %s ended: %s", self._frames.name, error)
        finally:
            self._frames.close()
            self._ended.set()
