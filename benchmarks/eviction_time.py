"""What thinning costs beside encoding: `python -m benchmarks.eviction_time`.

Streams of the same frames, 8 to a chunk, one that keeps everything and one for each policy, take
turns chunk by chunk. "observe" is what the text behind a chunk adds to the language model's
forward, "thin" is scoring, evicting and merging when pages close, both per frame; "share" is their
sum over the forward of the same frames without any of it. Medians over rounds of 20 chunks. On a
CPU seconds are those of the one thread that works, so that other work on the machine is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

import mmkv
from benchmarks.common import chunks, median, save, show
from mmkv.archive import CachedBlock
from mmkv.archive.thinning import Thinned, Thinning
from mmkv.encode.state import StreamState

POLICIES = ("text-prior", "snapkv", "temporal", "temporal+text-prior", "diverse", "random")
CHUNK, PER_ROUND = 8, 20
BAR = 0.15


def clock() -> float:
    """Seconds of this thread's work; on a GPU, of the clock on the wall."""
    return time.perf_counter() if torch.cuda.is_available() else time.thread_time()


class Clocked(Thinning):
    """Adds up its seconds."""

    seconds = 0.0

    def thin(self, blocks: Sequence[CachedBlock], states: Sequence[torch.Tensor]) -> Thinned | None:
        began = clock()
        thinned = super().thin(blocks, states)
        self.seconds += clock() - began
        return thinned


class Forward:
    """Adds up the seconds of a stream's forwards."""

    def __init__(self, state: StreamState) -> None:
        self.seconds = 0.0
        inner = state._forward

        def forward(*args: Any, **options: Any) -> Any:
            began = clock()
            done = inner(*args, **options)
            self.seconds += clock() - began
            return done

        state._forward = forward  # type: ignore[method-assign]


def run(
    vlm: mmkv.VideoLM, keep: float = 0.2, merge: str = "average", rounds: int = 5
) -> dict[str, Any]:
    """Measure and print."""
    streams = {"none": vlm.stream(_config())}
    forwards = {"none": Forward(streams["none"]._state)}
    clocks: dict[str, Clocked] = {}
    for name in POLICIES:
        stream = vlm.stream(_config(keep_ratio=keep, eviction=name, merging=merge))
        archive = stream._state.archive
        held = archive._thinning
        assert held is not None
        clocks[name] = Clocked(held.policy, held.merge, held.keep_ratio)
        archive._thinning = clocks[name]
        streams[name] = stream
        forwards[name] = Forward(stream._state)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in streams}
    for number in range(rounds + 1):
        before = {name: _seconds(forwards[name], clocks.get(name)) for name in streams}
        frames = CHUNK * PER_ROUND
        for images, times in chunks(frames, CHUNK, start=number * frames):
            for stream in streams.values():
                stream.feed(images, times)
        if number:
            for name in streams:
                now = _seconds(forwards[name], clocks.get(name))
                spent = [1e3 * (b - a) / frames for a, b in zip(before[name], now, strict=True)]
                rows[name].append((spent[0], spent[1]))
    plain = [forward for forward, _ in rows["none"]]
    result: dict[str, Any] = {
        "keep_ratio": keep, "merging": merge, "frames_per_chunk": CHUNK,
        "forward_ms": round(median(plain), 3), "bar": BAR, "policies": {},
    }  # fmt: skip
    table = [("policy", "observe + thin, ms per frame", f"share of the forward (bar {BAR:.0%})")]
    for name in POLICIES:
        observe = median([row[0] - p for row, p in zip(rows[name], plain, strict=True)])
        thin = median([row[1] for row in rows[name]])
        both = [(sum(row) - p) / p for row, p in zip(rows[name], plain, strict=True)]
        observe = observe if clocks[name].policy.observes else 0.0
        share = median(both) if clocks[name].policy.observes else thin / median(plain)
        result["policies"][name] = {
            "observe_ms": round(observe, 3), "thin_ms": round(thin, 3), "share": round(share, 3),
        }  # fmt: skip
        table.append((name, f"{observe:.2f} + {thin:.2f}", f"{share:.1%}"))
    for stream in streams.values():
        stream.close()
    show(f"thinning to {keep:.0%}; forward {median(plain):.2f} ms per frame", table)
    return result


def _config(**options: Any) -> mmkv.CacheConfig:
    return mmkv.CacheConfig(window_frames=16, chunk_frames=CHUNK, **options)


def _seconds(forward: Forward, clocked: Clocked | None) -> tuple[float, float]:
    """Of the forward, and of thinning, so far."""
    return forward.seconds, 0.0 if clocked is None else clocked.seconds


if __name__ == "__main__":
    torch.set_num_threads(1)
    save("eviction_time", run(mmkv.load("mmkv-tiny")))
