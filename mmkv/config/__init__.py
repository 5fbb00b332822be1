"""The settings of a stream: checked here, once, and every default decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmkv.config.cache import CacheConfig

__all__ = ["CacheConfig"]


def __getattr__(name: str) -> Any:
    if name == "CacheConfig":  # imports torch, which is not needed for units alone
        from mmkv.config.cache import CacheConfig

        return CacheConfig
    raise AttributeError(f"module 'mmkv.config' has no attribute {name!r}")
