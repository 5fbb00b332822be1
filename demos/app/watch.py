"""One video on its way through the model."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmkv.config.units import clock
from mmkv.demos.app.camera import CameraSource, jpeg
from mmkv.demos.app.folders import delete
from mmkv.demos.app.limits import Limits
from mmkv.demos.app.meter import Meter
from mmkv.demos.app.pace import PacedSource
from mmkv.demos.app.settings import Settings

if TYPE_CHECKING:
    from mmkv import VideoLM
    from mmkv.video import Frame, FrameSource

Kind = Literal["sample", "file", "camera", "address"]


@dataclass(frozen=True, slots=True)
class Video:
    """What a visitor chose.

    Attributes:
        kind: of source.
        name: what the page calls it.
        path: of a file.
        mine: whether the visitor sent the file, so that it is deleted with the session.
        token: what the page refers to it by, which nobody can guess.
    """

    kind: Kind
    name: str
    path: Path | None = None
    mine: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class Watch:
    """A stream that takes in a video in the background, at the player's pace or faster.

    Args:
        vlm: the model.
        video: what was chosen.
        open_source: opens the video's frames at the settings' rate.
        settings: the visitor's choices.
        limits: what the visitor may take.
        folder: where the stream is stored until `close`.

    Attributes:
        stream: what takes the video in.
        chat: a conversation about it.
        meter: measurements for the gauges.
        furthest: seconds that the player has reached so far.
        position: seconds where the player is.
        feed: the encoding in the background.

    Raises:
        ValueError: the video cannot be opened.
    """

    def __init__(
        self,
        vlm: VideoLM,
        video: Video,
        open_source: Callable[[], FrameSource],
        settings: Settings,
        limits: Limits,
        folder: Path,
    ) -> None:
        self.video = video
        self.settings = settings
        self._limits = limits
        self._store = folder / f"{secrets.token_hex(8)}.kv"
        self._source: PacedSource | CameraSource
        source = open_source()
        if isinstance(source, CameraSource):
            self._source = source
        else:
            rush = settings.rush or video.path is None  # no player sets the pace
            self._source = PacedSource(source, limits.stream_seconds, rush=rush)
        try:
            taken = video.path.stat().st_size if video.mine and video.path else 0
            config = settings.config(limits, limits.disk_bytes - taken)
            self.stream = vlm.stream(config, store=self._store)
        except BaseException:
            source.close()
            raise
        self.chat = self.stream.chat()
        self.meter = Meter(on_gpu=vlm.device.type != "cpu")
        self.furthest = 0.0
        self.position = 0.0
        self._closed = threading.Lock()
        self.feed = self.stream.start(self._source, fps=None)

    @property
    def live(self) -> bool:
        """Whether it runs in real time, so that one cannot seek in it."""
        return self._source.live

    @property
    def camera(self) -> CameraSource | None:
        """Where the page's pictures go, if it is a camera."""
        return self._source if isinstance(self._source, CameraSource) else None

    @property
    def showing(self) -> str:
        """Changes when the player has something else to show."""
        newest = self._newest
        return self.video.token if newest is None else f"{self.video.token} {newest[0]}"

    def picture(self) -> bytes | None:
        """Encode the newest frame as JPEG, where only the server sees the video; else None."""
        newest = self._newest
        return None if newest is None else jpeg(newest[1])

    @property
    def _newest(self) -> tuple[float, Frame] | None:
        if isinstance(self._source, PacedSource) and self.video.path is None:
            return self._source.newest
        return None

    @property
    def duration(self) -> float | None:
        """Seconds of the whole video, as far as it is watched here; None while that is open."""
        duration = self._source.duration
        return None if duration is None else min(duration, self._limits.stream_seconds)

    @property
    def encoded(self) -> float | None:
        """Seconds up to which it has been encoded."""
        return self.feed.position

    @property
    def behind(self) -> float:
        """Seconds between what is shown and what has been encoded."""
        done = self.feed.position
        camera = self.camera
        if camera is not None:
            return max(0.0, (camera.newest or 0.0) - (done or 0.0))
        if self.live:
            return self.feed.lag_seconds if self.feed.running else 0.0
        if self.settings.rush or not self.feed.running or done is None:
            return 0.0
        return max(0.0, self.position - done - 1 / self.settings.fps)

    @property
    def dropped(self) -> int:
        """Frames that were not looked at because the model was busy."""
        return self.feed.dropped

    def play(self, position: float, furthest: float) -> None:
        """Note that the player is at `position` and has been at `furthest`, in seconds."""
        self.position = position
        self.furthest = max(self.furthest, furthest, position)
        if isinstance(self._source, PacedSource):
            self._source.reach(self.furthest)

    def rush(self) -> None:
        """Hold nothing back: the player is at the end, or cannot play this."""
        if isinstance(self._source, PacedSource):
            self._source.rush()

    def note(self) -> str:
        """Say how the watching went, where there is something to say; else ""."""
        if self.feed.error is not None:
            return f"{self.feed.error}."
        if self._source.cut:
            return (
                f"Watched up to {clock(self._limits.stream_seconds)}, "
                "the longest that this server allows."
            )
        return ""

    def measure(self) -> None:
        """Take a measurement for the gauges."""
        self.meter.sample(self.stream.stats())

    def close(self, keep: Path | None = None) -> None:
        """Stop, and delete what was stored and the visitor's file.

        Args:
            keep: a file that is not deleted.
        """
        if not self._closed.acquire(blocking=False):
            return
        try:
            self.feed.stop()
            self.stream.close()
        finally:
            delete(self._store)
            if self.video.mine and self.video.path not in (None, keep):
                self.video.path.unlink(missing_ok=True)
