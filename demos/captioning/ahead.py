"""The next video, opened and decoded by a thread while the model is busy with this one."""

from __future__ import annotations

import threading

from mmkv.demos.captioning.listing import Video
from mmkv.demos.captioning.settings import Captioning
from mmkv.video import FrameSource, open_source


class Ahead:
    """Opens a video in a thread; the source then reads ahead within its own bounds.

    Args:
        video: what to open.
        settings: for the rate and the reader.
    """

    def __init__(self, video: Video, settings: Captioning) -> None:
        self.video = video
        self._settings = settings
        self._source: FrameSource | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._open, name="mmkv-ahead", daemon=True)
        self._thread.start()

    def take(self) -> FrameSource:
        """Hand over the source, once it is open; the caller has to close it.

        Raises:
            Exception: what opening it raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._source is not None
        return self._source

    def close(self) -> None:
        """Give up the source; it is closed once it has been opened. Returns at once."""
        threading.Thread(target=self._give_up, daemon=True).start()

    def _open(self) -> None:
        try:
            settings = self._settings
            self._source = open_source(self.video.path, fps=settings.fps, reader=settings.reader)
        except Exception as error:  # raised when the video's turn comes
            self._error = error

    def _give_up(self) -> None:
        self._thread.join()
        if self._source is not None:
            self._source.close()
