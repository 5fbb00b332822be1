"""mmkv: watch a video forever in bounded GPU memory, and ask it anything at any time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmkv.version import __version__

if TYPE_CHECKING:
    from mmkv.answer.answer import Answer, FrameRef
    from mmkv.answer.find import Moment
    from mmkv.answer.reply import Reply
    from mmkv.config.cache import CacheConfig
    from mmkv.eviction import Eviction, Frames
    from mmkv.loading import load
    from mmkv.merging import Merge
    from mmkv.retrieval.text_image import TextImage
    from mmkv.session.ask_every import AskEvery
    from mmkv.session.chat import Chat
    from mmkv.session.encode_source import Progress
    from mmkv.session.feed import Feed
    from mmkv.session.stats import Stats
    from mmkv.session.stream import Stream
    from mmkv.store import StoreError
    from mmkv.video_lm import VideoLM

_WHERE = {
    "Answer": "answer.answer",
    "AskEvery": "session.ask_every",
    "CacheConfig": "config.cache",
    "Chat": "session.chat",
    "Eviction": "eviction",
    "Feed": "session.feed",
    "FrameRef": "answer.answer",
    "Frames": "eviction",
    "Merge": "merging",
    "Moment": "answer.find",
    "Progress": "session.encode_source",
    "Reply": "answer.reply",
    "Stats": "session.stats",
    "StoreError": "store",
    "Stream": "session.stream",
    "TextImage": "retrieval.text_image",
    "VideoLM": "video_lm",
    "load": "loading",
}

__all__ = [
    "Answer",
    "AskEvery",
    "CacheConfig",
    "Chat",
    "Eviction",
    "Feed",
    "FrameRef",
    "Frames",
    "Merge",
    "Moment",
    "Progress",
    "Reply",
    "Stats",
    "StoreError",
    "Stream",
    "TextImage",
    "VideoLM",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; `mmkv --help` should not
    if name in _WHERE:
        return getattr(import_module(f"mmkv.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'mmkv' has no attribute {name!r}")
