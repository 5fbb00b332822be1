"""What keeping a stream on disk costs: bytes per frame, encoding speed, memory.

Speed: two streams, one with a store and one without, encode the same frames in turns. Memory:
resident bytes gained over the second half of a stream whose `max_ram` holds a small part of it,
beyond its summaries.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import mmkv
from benchmarks.common import chunks, median, rss, save, show

CHUNK = 8
PACKED = ((None, None), (4, 4), (2, 2), (1.5, 2))  # key and value bits


def run(vlm: mmkv.VideoLM, total: int = 1000) -> dict[str, Any]:
    """Measure and print; `total` frames per measurement, more than 500."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {_name(*bits): _sizes(vlm, Path(folder), bits) for bits in PACKED}
        ingest = _ingest(vlm, Path(folder) / "ingest", total)
        memory = _memory(vlm, Path(folder) / "memory", total)
    plain = _fp16_bytes(vlm)
    result = {"fp16_bytes": plain, "sizes": sizes, "ingest": ingest, "memory": memory}
    rows = [("", "measured", "bar"), ("a frame's keys and values in fp16, bytes", f"{plain}", "")]
    for name, size in sizes.items():
        share = size["disk"] / plain
        text = f"{size['disk']:.0f} ({share:.3f}), summaries {size['summaries']:.0f} of it"
        rows.append((f"bytes per frame on disk, {name}", text, ""))
    rows += [
        ("ms/frame without a store", f"{1e3 * ingest['off']:.2f}", ""),
        ("ms/frame with a store", f"{1e3 * ingest['on']:.2f}", ""),
        ("speed with / without", f"{ingest['ratio']:.3f}", "at least 0.9"),
        ("memory beyond the summaries, MB", f"{memory['beyond_mb']:.1f}", "under 20"),
        ("frames on disk, MB", f"{memory['disk_mb']:.0f}", ""),
    ]
    show(f"store ({vlm.name}, {total} frames, chunks of {CHUNK})", rows)
    save("store", result)
    return result


def _name(key_bits: float | None, value_bits: float | None) -> str:
    return "as they are" if key_bits is None else f"K{key_bits:g}/V{value_bits:g}"


def _config(**more: Any) -> mmkv.CacheConfig:
    return mmkv.CacheConfig(window_frames=16, recent_frames=4, retrieve_frames=8, **more)


def _fp16_bytes(vlm: mmkv.VideoLM) -> int:
    per_token = vlm.bytes_per_token * 2 // torch.empty((), dtype=vlm.dtype).element_size()
    return int(vlm.tokens_per_frame(64, 64) * per_token)


def _sizes(
    vlm: mmkv.VideoLM, folder: Path, bits: tuple[float | None, float | None]
) -> dict[str, float]:
    """Bytes per frame of a store of 200 frames."""
    config = _config(key_bits=bits[0], value_bits=bits[1])
    with vlm.stream(config, store=folder / _name(*bits).replace("/", "")) as stream:
        for stack, times in chunks(200, CHUNK):
            stream.feed(stack, times)
        stream.flush()
        stats = stream.stats()
        summaries = stream._state.archive.snapshot().summaries(0, 0, 1)
    layers = vlm.adapter.shape.layers
    frames = stats.archived_frames
    return {"disk": stats.disk_bytes / frames, "summaries": 2 * layers * summaries.numel()}


def _ingest(vlm: mmkv.VideoLM, folder: Path, total: int) -> dict[str, float]:
    """Seconds per frame with a store and without, in turns; the remaining backlog is included."""
    spent: dict[str, list[float]] = {"on": [], "off": []}
    with vlm.stream(_config(), store=folder) as on, vlm.stream(_config()) as off:
        for i, (stack, times) in enumerate(chunks(total, CHUNK)):
            order = [("on", on), ("off", off)]
            for name, stream in order if i % 2 else order[::-1]:
                started = time.perf_counter()
                stream.feed(stack, times)
                spent[name].append((time.perf_counter() - started) / CHUNK)
        started = time.perf_counter()
        on.flush()
        rest = time.perf_counter() - started
    keep = slice(len(spent["on"]) // 5, None)
    on_each, off_each = median(spent["on"][keep]), median(spent["off"][keep])
    whole = (sum(spent["on"]) + rest) / sum(spent["off"])
    return {
        "on": on_each,
        "off": off_each,
        "ratio": off_each / on_each,
        "ratio_of_sums_with_flush": 1 / whole,
    }


def _memory(vlm: mmkv.VideoLM, folder: Path, total: int) -> dict[str, float]:
    with vlm.stream(_config(max_ram="20MB"), store=folder) as stream:
        before = held = 0
        for i, (stack, times) in enumerate(chunks(total, CHUNK)):
            stream.feed(stack, times)
            if i == total // CHUNK // 2:
                gc.collect()
                before, held = rss(), _index(stream)
        stream.flush()
        gc.collect()
        stats = stream.stats()
        grown, searched = rss() - before, _index(stream) - held
    return {
        "resident_mb": grown / 1e6,
        "beyond_mb": (grown - searched) / 1e6,
        "disk_mb": stats.disk_bytes / 1e6,
        "archive_mb": stats.archive_bytes / 1e6,
    }


def _index(stream: mmkv.Stream) -> int:
    """Bytes of the summaries so far; they are allocated in larger pieces, but not touched."""
    past = stream._state.archive.snapshot()
    layers = range(stream._runtime.adapter.shape.layers)
    return sum(part.nbytes for i in layers for part in past.summary_parts(i, 0, 1)) * len(
        past.blocks
    )
