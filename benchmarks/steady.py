"""Does a stream stay as fast and as small as it was? And what does the engine add to the model?

Time: two streams, one at frames 500 to 1,000 and one at its 500 frames after `total`, encode in
turns, so that a noisy machine slows both alike. Memory: resident bytes over the last 2,000 of the
`total` frames, beyond what the archive and its index grew by. Overhead: the engine's forward
against the bare language model's on the same chunk behind a `DynamicCache` as long as the window.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import torch
from transformers import DynamicCache

import mmkv
from benchmarks.common import chunks, median, rss, save, show
from mmkv.engine.transformers_compat import cache_argument

CHUNK = 8


def run(vlm: mmkv.VideoLM, total: int = 3000) -> dict[str, Any]:
    """Measure and print; `total` frames, more than 2,000."""
    config = mmkv.CacheConfig(window_frames=16, recent_frames=4, retrieve_frames=8)
    with vlm.stream(config) as old, vlm.stream(config) as young:
        memory = _grow(old, total)
        for stack, times in chunks(500 - 500 % CHUNK, CHUNK):
            young.feed(stack, times)
        early, late = _in_turns(young, old, total)
        memory["window"] = old.stats().window_bytes
    overhead = _overhead(vlm, config.window_frames)
    ratio = median(late) / median(early)
    result = {
        "frames": total,
        "early_ms": 1e3 * median(early),
        "late_ms": 1e3 * median(late),
        "late_over_early": ratio,
        "memory": memory,
        "overhead": overhead,
    }
    show(
        f"{total} frames ({vlm.name}, chunks of {CHUNK}, window {config.window_frames})",
        [
            ("", "measured", "bar"),
            ("ms/frame, frames 500-1,000", f"{result['early_ms']:.2f}", ""),
            ("ms/frame, 500 after the last", f"{result['late_ms']:.2f}", ""),
            ("those / frames 500-1,000", f"{ratio:.3f}", "0.95 to 1.05"),
            ("memory beyond the archive, MB", f"{memory['beyond_mb']:.1f}", "under 20"),
            ("archive, bytes per frame", f"{memory['archive_per_frame']:.0f}", ""),
            ("engine LM pass, ms/frame", f"{overhead['engine_ms']:.2f}", ""),
            ("bare LM forward, ms/frame", f"{overhead['bare_ms']:.2f}", ""),
            ("engine / bare", f"{overhead['ratio']:.2f}", ""),
        ],
    )
    save("steady", result)
    return result


def _grow(stream: mmkv.Stream, count: int) -> dict[str, float]:
    """Encode `count` frames; memory over the last 2,000."""
    before = held = start = 0
    for i, (stack, times) in enumerate(chunks(count - count % CHUNK, CHUNK)):
        stream.feed(stack, times)
        if (i + 1) * CHUNK == count - count % CHUNK - 2000:
            gc.collect()
            stats = stream.stats()
            before, held = rss(), stats.archive_bytes + stats.index_bytes
            start = stats.frames
    gc.collect()
    stats = stream.stats()
    grown = rss() - before
    archived = stats.archive_bytes + stats.index_bytes - held
    return {
        "frames": stats.frames - start,
        "resident_mb": grown / 1e6,
        "archive_mb": archived / 1e6,
        "beyond_mb": (grown - archived) / 1e6,
        "archive_per_frame": stats.archive_bytes / stats.archived_frames,
    }


def _in_turns(young: mmkv.Stream, old: mmkv.Stream, total: int) -> tuple[list[float], list[float]]:
    early, late = [], []
    ahead = chunks(504, CHUNK, start=total)
    for stack, times in chunks(504, CHUNK, start=504):
        later = next(ahead)
        for stream, pair, into in ((young, (stack, times), early), (old, later, late)):
            started = time.perf_counter()
            stream.feed(*pair)
            into.append((time.perf_counter() - started) / CHUNK)
    return early, late


def _overhead(vlm: mmkv.VideoLM, window: int) -> dict[str, float]:
    """The engine's pass and the bare forward on equal chunks, in turns."""
    model, tokens = vlm.adapter.language_model, int(vlm.tokens_per_frame(64, 64))
    cache = DynamicCache()
    past = {cache_argument(model): cache}
    embeds = torch.randn(1, CHUNK * tokens, vlm.adapter.text_config.hidden_size, dtype=vlm.dtype)
    engine, bare = [], []
    config = mmkv.CacheConfig(window_frames=window)
    # the same hooks serve both: outside an engine pass the model runs its stock attention
    with vlm.stream(config) as stream, torch.inference_mode():
        for i, (stack, times) in enumerate(chunks(80 * CHUNK, CHUNK)):
            spent = stream.stats().timings["encode"]
            stream.feed(stack, times)
            spent = stream.stats().timings["encode"] - spent
            started = time.perf_counter()
            model(inputs_embeds=embeds, use_cache=True, **past)
            took = time.perf_counter() - started
            _keep_last(cache, window * tokens)
            if i >= 20:
                engine.append(spent / CHUNK)
                bare.append(took / CHUNK)
    low, high = median(bare), median(engine)
    return {"engine_ms": 1e3 * high, "bare_ms": 1e3 * low, "ratio": high / low}


def _keep_last(cache: DynamicCache, tokens: int) -> None:
    for layer in cache.layers:
        layer.keys = layer.keys[:, :, -tokens:].contiguous()
        layer.values = layer.values[:, :, -tokens:].contiguous()
