"""The stream's past: blocks, packed into pages, in memory and on disk, and their summaries."""

from mmkv.archive.archive import Archive
from mmkv.archive.blocks import CachedBlock
from mmkv.archive.snapshot import Snapshot
from mmkv.archive.timeline import PageSize

__all__ = ["Archive", "CachedBlock", "PageSize", "Snapshot"]
