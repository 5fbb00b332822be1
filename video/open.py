"""`open_source`: from whatever a user names to a `FrameSource`."""

import math
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmkv.video.errors import VideoError, VideoNotFoundError
from mmkv.video.frames import describe, to_numpy
from mmkv.video.live import LiveSource, Reconnect
from mmkv.video.redact import Address, redact
from mmkv.video.sampling import check_fps
from mmkv.video.source import FrameSource

READERS = ("auto", "pyav", "decord", "opencv")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def open_source(
    source: Any,
    *,
    fps: float | None = 1.0,
    reader: str = "auto",
    times: Sequence[float] | None = None,
    source_fps: float | None = None,
    max_side: int | None = None,
    live: bool | None = None,
    timeout: float = 10.0,
    reconnect: bool | Reconnect = True,
) -> FrameSource:
    """Open a source and read it at `fps` frames per second of its own time.

    Args:
        source: a path to a video file or a folder of images; a webcam's index (`0` or `"0"`) or
            device (`"/dev/video0"`); a network address (`rtsp://`, `http://`, …); a uint8 array
            or torch tensor `[N, H, W, 3]`; a list of frames or PIL images; any iterable of frames
            or of `(seconds, frame)` pairs; or a `FrameSource`.
        fps: frames per second to choose by presentation time (rule: `mmkv.video.sampling`); None
            for every frame. A `FrameSource` is sampled too; with None it is returned as it is.
        reader: "auto" (PyAV; decord, then OpenCV, where PyAV is not installed), "pyav", "decord"
            (files only) or "opencv". Webcams are always read by OpenCV.
        times: seconds of each frame of an array or list; they must rise.
        source_fps: frames per second of arrays, folders and plain frames; None: `fps`, or 1.
        max_side: larger frames are scaled down in proportion while reading, to this many pixels a
            side.
        live: whether a network address is a live stream. None finds out: everything but HTTP is,
            HTTP by the rules of `mmkv.video.recording`. A recording is read in full, like a file.
        timeout: seconds without data after which a network source or camera counts as lost.
        reconnect: whether and how the connection to a lost live source is retried.

    Returns:
        the source, to be used in a `with` statement; a live one has already given its first frame.

    Raises:
        VideoError: the source cannot be read; the message is one sentence (`VideoNotFoundError`:
            no such path).
        ValueError: an argument is out of range.
    """
    fps = check_fps(fps)
    source_fps = check_fps(source_fps, "source_fps")
    rate = source_fps or fps or 1.0
    policy = _check(reader, max_side, timeout, reconnect)
    if times is not None and not (to_numpy(source) is not None or isinstance(source, list | tuple)):
        raise ValueError("times= is only for an array or a list of frames")
    if isinstance(source, FrameSource):
        if fps is None and max_side is None:
            return source
        from mmkv.video.resample import ResampledSource

        return ResampledSource(source, fps=fps, max_side=max_side)
    if isinstance(source, os.PathLike):
        return _open_path(Path(source), fps, rate, reader, max_side)
    if isinstance(source, int) and not isinstance(source, bool):
        return _open_camera(source, fps, timeout, policy, max_side)
    if isinstance(source, str):
        return _open_text(source, fps, rate, reader, max_side, live, timeout, policy)
    if to_numpy(source) is not None or isinstance(source, list | tuple):
        from mmkv.video.arrays import ArraySource

        return ArraySource(source, fps=fps, times=times, rate=rate, max_side=max_side)
    if isinstance(source, Iterable) and not isinstance(source, bytes | dict):
        from mmkv.video.iterators import IteratorSource

        return IteratorSource(source, fps=fps, rate=rate, max_side=max_side)
    raise VideoError(
        f"cannot read frames from {describe(source)}; give a path, a webcam index, an address, "
        "a uint8 array [N, H, W, 3], a list of frames, an iterator or a FrameSource"
    )


def _check(reader: str, max_side: int | None, timeout: float, reconnect: Any) -> Reconnect:
    if reader not in READERS:
        raise ValueError(f"reader must be one of {', '.join(READERS)}; got {reader!r}")
    if max_side is not None and (not isinstance(max_side, int) or max_side < 1):
        raise ValueError(f"max_side must be None or an int of at least 1 pixel; got {max_side!r}")
    if not isinstance(timeout, int | float) or not math.isfinite(timeout) or timeout <= 0:
        raise ValueError(f"timeout must be a finite number of seconds above 0; got {timeout!r}")
    if isinstance(reconnect, Reconnect):
        return reconnect
    return Reconnect() if reconnect else Reconnect(attempts=0)


def _open_text(
    text: str,
    fps: float | None,
    rate: float,
    reader: str,
    max_side: int | None,
    live: bool | None,
    timeout: float,
    policy: Reconnect,
) -> FrameSource:
    if text.isascii() and text.isdigit():
        return _open_camera(int(text), fps, timeout, policy, max_side)
    if re.fullmatch(r"/dev/video\d+", text):
        return _open_camera(text, fps, timeout, policy, max_side)
    if text.lower().startswith("file://"):
        from urllib.parse import unquote, urlsplit

        text = unquote(urlsplit(text).path)
    elif _SCHEME.match(text):
        return _open_address(Address(text), fps, reader, max_side, live, timeout, policy)
    return _open_path(Path(text), fps, rate, reader, max_side)


def _open_camera(
    device: int | str, fps: float | None, timeout: float, policy: Reconnect, max_side: int | None
) -> FrameSource:
    from mmkv.video.camera import connect_opencv

    name = f"webcam {device}" if isinstance(device, int) else device
    if isinstance(device, int) and device < 0:
        raise VideoError(f"{name}: a webcam's index is 0 or more; 0 is the first camera")
    return LiveSource(
        name, connect_opencv(device, name, timeout, max_side), fps=fps, reconnect=policy
    )


def _open_address(
    address: Address,
    fps: float | None,
    reader: str,
    max_side: int | None,
    live: bool | None,
    timeout: float,
    policy: Reconnect,
) -> FrameSource:
    from mmkv.video.network import SCHEMES, connect_network, look_at
    from mmkv.video.recording import Kind

    name = str(address)
    if address.scheme not in SCHEMES:
        raise VideoError(
            f"{name}: {address.scheme}:// addresses cannot be read; allowed are "
            f"{', '.join(SCHEMES)} and local paths"
        )
    if reader == "decord":
        raise VideoError(f'{name}: decord reads local files only; use reader="pyav" for addresses')
    if reader == "opencv":
        from mmkv.video.camera import connect_opencv

        connect = connect_opencv(address, name, timeout, max_side)
        return LiveSource(name, connect, fps=fps, reconnect=policy)
    if live is not None:
        kind = Kind.LIVE if live else Kind.RECORDING
    elif address.scheme in ("http", "https"):
        kind = look_at(address, timeout)
    else:
        kind = Kind.LIVE
    if kind is not Kind.RECORDING:
        connect = connect_network(address, timeout, max_side)
        ends = kind is Kind.OPEN
        return LiveSource(name, connect, fps=fps, reconnect=policy, ends=ends)
    from mmkv.video.container import NETWORK_PROTOCOLS
    from mmkv.video.pyav_file import Job, PyAvFile

    return PyAvFile(
        Job(address, name, fps, max_side, protocols=NETWORK_PROTOCOLS, timeout=(timeout, timeout))
    )


def _open_path(
    path: Path, fps: float | None, rate: float, reader: str, max_side: int | None
) -> FrameSource:
    name = redact(path)  # a mistyped address ends up here too
    _check_path(path, name)
    if path.is_dir():
        from mmkv.video.images import FolderSource

        return FolderSource(path, fps=fps, rate=rate, max_side=max_side)
    from mmkv.video.animation import Animation, is_animation

    if is_animation(path):
        animation = Animation(path, name, fps=fps, max_side=max_side)
        if reader not in ("auto", "pyav"):
            animation.warnings.append(
                f"{name}: read by Pillow instead of {reader}: it is an animated picture"
            )
        return animation
    if reader == "auto":
        reader = next((one for one in READERS[1:] if _installed(one)), "pyav")
    if not _installed(reader):
        raise VideoError(f'reader="{reader}" needs a package: pip install {_PACKAGES[reader][1]}')
    if reader != "pyav":
        from mmkv.video.checked import open_checked

        return open_checked(reader, str(path), name, fps=fps, max_side=max_side, head=_head(path))
    from mmkv.video.pyav_file import Job, PyAvFile

    # "file:" keeps FFmpeg from reading a protocol into a name such as "concat:a|b"
    return PyAvFile(Job(f"file:{path}", name, fps, max_side, head=_head(path)))


def _head(path: Path) -> bytes:
    from mmkv.video.matroska import HEAD_BYTES

    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:  # PyAV will say so
        return b""


def _check_path(path: Path, name: str) -> None:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb"):
                pass
    except FileNotFoundError:
        missing = f"{name}: there is no such file or folder; check the path"
    except PermissionError:
        raise VideoError(f"{name}: no permission to read it; check its access rights") from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{name[:200]!r}: cannot be opened as a path: {cause}") from None
    else:
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            raise VideoError(f"{name}: the file is empty (0 bytes)")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise VideoError(f"{name}: it is neither a file nor a folder")
        return
    raise VideoNotFoundError(missing)


_PACKAGES = {
    "pyav": ("av", "av"),
    "decord": ("decord", "decord"),
    "opencv": ("cv2", "opencv-python-headless"),
}


def _installed(reader: str) -> bool:
    from importlib.util import find_spec

    return find_spec(_PACKAGES[reader][0]) is not None
