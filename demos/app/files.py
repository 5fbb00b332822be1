"""Video files that visitors send: opened with care, since anybody may have made them."""

from __future__ import annotations

from pathlib import Path

from mmkv.video import FrameSource, VideoError

# Containers that hold their own data. Playlists and scripts of FFmpeg (HLS, DASH, concat, SDP),
# which name other files or addresses, are none of them.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,asf,ogg,"
    "mpjpeg,mjpeg,h264,hevc,m4v,ivf,mxf,nut,gif,rm,wtv,dv"
)
MAX_SIDE = 1280  # pixels; larger frames are scaled down while they are read
PLAYABLE = {  # by suffix, the media type that is sent to the browser
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/webm",
    ".ogv": "video/ogg",
}


def open_file(path: Path, name: str, fps: float | None) -> FrameSource:
    """Open a file that a visitor sent, in a process of its own.

    Args:
        path: where it is.
        name: what its owner calls it.
        fps: frames per second to choose; None for all.

    Raises:
        VideoError: it is empty, not a video, or of a kind that may name other files.
    """
    from mmkv.demos.app.isolated import IsolatedFile

    if not path.exists():
        raise VideoError(f"{name}: the file is not here any more; send it again")
    if path.stat().st_size == 0:
        raise VideoError(f"{name}: the file is empty (0 bytes)")
    return IsolatedFile(path, name, fps, MAX_SIDE, FORMATS)


def plain_name(name: str) -> str:
    """Make a file's name fit to show: no folders, no control characters, not too long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in last if c.isprintable()).strip()
    if len(kept) > 80:
        kept = f"{kept[:50]}…{kept[-25:]}"
    return kept or "video"
