"""The next video, opened and decoded by a thread while the model is busy with this one."""

from __future__ import annotations

import threading

from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.settings import Captioning
from mmkv.video import FrameSource, open_source


class Ahead:
    """Opens a video in a thread; the source then reads ahead within its own bounds.

    The thread lives until `close`: a reader may have a process that ends with the thread that
    started it.

    Args:
        video: what to open.
        settings: for the rate and the reader.
    """

    def __init__(self, video: Video, settings: Captioning) -> None:
        self.video = video
        self._settings = settings
        self._source: FrameSource | None = None
        self._error: Exception | None = None
        self._opened, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="mmkv-ahead", daemon=True)
        self._thread.start()

    def take(self) -> FrameSource:
        """Hand over the source, once it is open; it is to be used before `close`.

        Raises:
            Exception: what opening it raised.
        """
        self._opened.wait()
        if self._error is not None:
            raise self._error
        assert self._source is not None
        return self._source

    def close(self) -> None:
        """Give up the source; it is closed once it has been opened. Returns at once."""
        self._done.set()

    def _hold(self) -> None:
        try:
            settings = self._settings
            self._source = open_source(
                self.video.path, fps=settings.fps, reader=settings.reader, live=settings.live
            )
        except Exception as error:  # raised when the video's turn comes
            self._error = error
        finally:
            self._opened.set()
        self._done.wait()
        if self._source is not None:
            self._source.close()
