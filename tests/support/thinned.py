"""Streams whose past is thinned, and what their answers are given from."""

from __future__ import annotations

from typing import Any

import torch
from small_models import clip, small_vlm

import mmkv

FRAMES = 24
QUESTION = "What is it?"


def opened(family: str = "llava_onevision", store: Any = None, **settings: Any) -> mmkv.Stream:
    config = {"window_frames": 8, "recent_frames": 2, "retrieve_frames": FRAMES, "chunk_frames": 4,
              "keep_ratio": 0.3, "eviction": "random"}  # fmt: skip
    stream = small_vlm(family).stream(mmkv.CacheConfig(**{**config, **settings}), store=store)
    stream.feed(clip(FRAMES), [float(i) for i in range(FRAMES)])
    stream.flush()
    return stream


def buffers(stream: mmkv.Stream, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of a question's layers before its own tokens, `[1, H_kv, n, D]`."""
    reply = stream.ask_iter(QUESTION, max_new_tokens=1, **options)
    found = [
        (b.key[:, :, :before].clone(), b.value[:, :, :before].clone())
        for b, before in zip(
            reply._generation.engine_pass.buffers.layers,
            reply._generation.engine_pass.before,
            strict=True,
        )
    ]
    reply.finish()
    return found
