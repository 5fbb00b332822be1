"""The stream's past: blocks, packed into pages, in memory and on disk, and their summaries."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmkv.archive.archive import Archive
    from mmkv.archive.blocks import CachedBlock
    from mmkv.archive.snapshot import Snapshot
    from mmkv.archive.timeline import PageSize

_WHERE = {
    "Archive": "archive",
    "CachedBlock": "blocks",
    "PageSize": "timeline",
    "Snapshot": "snapshot",
}

__all__ = ["Archive", "CachedBlock", "PageSize", "Snapshot"]


def __getattr__(name: str) -> Any:
    # an archive imports torch, which takes seconds; what a store holds can be told without
    if name in _WHERE:
        return getattr(import_module(f"mmkv.archive.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'mmkv.archive' has no attribute {name!r}")
