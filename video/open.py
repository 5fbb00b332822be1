"""`open_source`: from whatever a user names to a `FrameSource`."""

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from mmkv.video.errors import VideoError, VideoNotFoundError
from mmkv.video.frames import describe, to_numpy
from mmkv.video.sampling import check_fps
from mmkv.video.source import FrameSource

Reader = Literal["auto", "pyav", "decord", "opencv"]
READERS = ("auto", "pyav", "decord", "opencv")


def open_source(
    source: Any,
    *,
    fps: float | None = 1.0,
    reader: Reader = "auto",
    times: Sequence[float] | None = None,
    source_fps: float | None = None,
    max_side: int | None = None,
) -> FrameSource:
    """Open `source` for reading at `fps` frames per second."""
    from mmkv.video.arrays import ArraySource

    fps = check_fps(fps)
    source_fps = check_fps(source_fps, "source_fps")
    rate = source_fps or fps or 1.0
    if isinstance(source, FrameSource):
        from mmkv.video.resample import ResampledSource

        if fps is None and max_side is None:
            return source
        return ResampledSource(source, fps=fps, max_side=max_side)
    if isinstance(source, (str, Path)):
        return _open_path(Path(source), fps, rate, max_side)
    if to_numpy(source) is not None or isinstance(source, (list, tuple)):
        return ArraySource(source, fps=fps, times=times, rate=rate, max_side=max_side)
    if isinstance(source, Iterable):
        from mmkv.video.iterators import IteratorSource

        return IteratorSource(source, fps=fps, rate=rate, max_side=max_side)
    raise VideoError(f"cannot read frames from {describe(source)}")


def _open_path(path: Path, fps: float | None, rate: float, max_side: int | None) -> FrameSource:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise VideoNotFoundError(f"{path}: there is no such file or folder") from None
    if stat.S_ISDIR(mode):
        from mmkv.video.images import FolderSource

        return FolderSource(path, fps=fps, rate=rate, max_side=max_side)
    from mmkv.video.pyav_file import Job, PyAvFile

    return PyAvFile(Job(f"file:{path}", str(path), fps, max_side))
