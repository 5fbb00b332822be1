"""A loaded model, as streams and answers need it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from mmkv.engine.decode_buffers import BufferPool
from mmkv.engine.devices import layer_devices
from mmkv.engine.fair_lock import lock_of
from mmkv.engine.rotary import Rotary
from mmkv.models.base import VideoModel


class ModelRuntime:
    """A model and its tokenizer, and what its streams share.

    Attributes:
        name: what was loaded.
        family: the adapter's name.
        cuda_graphs: whether answers replay their decode step as a CUDA graph, where possible.
    """

    cuda_graphs: bool = True

    def __init__(self, adapter: VideoModel, name: str) -> None:
        self.adapter = adapter
        self.name = name
        self.family = adapter.family
        self.tokenizer = adapter.tokenizer
        self.rotary = Rotary(adapter)
        self.lock = lock_of(adapter.language_model)
        self.buffers = BufferPool(adapter, partial(layer_devices, adapter))
        self.stop_tokens = _stop_tokens(adapter)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.family}, {self.dtype}, {self.device})>"

    @property
    def device(self) -> torch.device:
        """Where frames enter the model."""
        return self.adapter.device

    @property
    def dtype(self) -> torch.dtype:
        """Element type of keys and values."""
        return self.adapter.dtype

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self.adapter.model

    def tokens_per_frame(self, height: int = 1080, width: int = 1920) -> float:
        """Return how many tokens a frame of this size becomes, the text around it included."""
        grid = self.adapter.grid(height, width)
        patch = self.adapter.temporal_patch
        times = [float(i) for i in range(patch)]
        return self.adapter.layout(grid, times, 1).offsets.shape[1] / patch

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values over all global layers, uncompressed."""
        return self.adapter.elements * self.dtype.itemsize

    def gb_per_hour(self, fps: float = 1.0, height: int = 1080, width: int = 1920) -> float:
        """Return GB (10^9 bytes) of uncompressed keys and values of an hour of such frames."""
        return self.tokens_per_frame(height, width) * self.bytes_per_token * fps * 3600 / 1e9


def _stop_tokens(adapter: VideoModel) -> frozenset[int]:
    generation = getattr(adapter.model, "generation_config", None)
    ends = getattr(generation, "eos_token_id", None)
    listed = ends if isinstance(ends, (list, tuple)) else [ends]
    return frozenset(i for i in (*listed, adapter.tokenizer.eos_token_id) if i is not None)
