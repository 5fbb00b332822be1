"""One slot that always holds the newest frame of a live source."""

import threading

from mmkv.video.source import Frame


class Mailbox:
    """A new frame replaces one that was not taken, which counts as dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: tuple[float, Frame] | None = None
        self._error: BaseException | None = None
        self._ended = False
        self.dropped = 0

    def put(self, seconds: float, frame: Frame) -> None:
        """Make this the newest frame."""
        with self._changed:
            self.dropped += self._newest is not None
            self._newest = seconds, frame
            self._changed.notify_all()

    def get(self) -> tuple[float, Frame] | None:
        """Take the newest frame; blocks until there is one.

        Returns:
            `(seconds, frame)`, or None at the end.

        Raises:
            BaseException: the error given to `end`, once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended)
            item, self._newest = self._newest, None
            if item is not None:
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def end(self, error: BaseException | None = None) -> None:
        """Accept no more frames; the reader gets the frame still waiting, then `error` if given."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Release the reader at once and discard the frame."""
        with self._changed:
            self._ended, self._newest, self._error = True, None, None
            self._changed.notify_all()
