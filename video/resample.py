"""An existing frame source at another rate."""

from collections.abc import Iterator

from mmkv.video.frames import shrink
from mmkv.video.sampling import LiveSampler, sample
from mmkv.video.source import Frame, FrameSource


class ResampledSource(FrameSource):
    """Another `FrameSource`, sampled at `fps`; closing it closes the other.

    A live source is sampled without delay (the first frame at or after each grid time), any other
    by what is on screen.

    Args:
        source: the other source.
        fps: frames per second to choose; None for all.
        max_side: larger frames are scaled down to this many pixels a side.
    """

    def __init__(self, source: FrameSource, *, fps: float | None, max_side: int | None) -> None:
        self.name = source.name
        self.duration = source.duration
        self.live = source.live
        self.warnings = source.warnings
        self._source = source
        self._fps = fps
        self._max_side = max_side

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """Frames that the live source discarded because its reader was slow."""
        return self._source.dropped

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        live = LiveSampler(self._fps)
        frames: Iterator[tuple[float, Frame]] = iter(self._source)
        if self.live:
            frames = (item for item in frames if live.wants(item[0]))
        else:
            frames = sample(frames, self._fps)
        for seconds, frame in frames:
            if self.closed:
                return
            yield seconds, shrink(frame, self._max_side)

    def close(self) -> None:
        """Stop, and close the other source."""
        super().close()
        self._source.close()
