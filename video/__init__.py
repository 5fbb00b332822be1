"""Frame sources: files, cameras, streams, folders, arrays and iterators, sampled by time."""

from mmkv.video.errors import VideoError, VideoNotFoundError
from mmkv.video.live import Reconnect
from mmkv.video.open import open_source
from mmkv.video.redact import redact
from mmkv.video.source import Frame, FrameSource

__all__ = [
    "Frame",
    "FrameSource",
    "Reconnect",
    "VideoError",
    "VideoNotFoundError",
    "open_source",
    "redact",
]
