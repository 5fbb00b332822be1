"""Attention of a chunk over sinks, ring window and itself."""

from mmkv.kernels.window_attention.naive import FarSinks, window_attention

__all__ = ["FarSinks", "window_attention"]
