"""What a question may see, fixed at the moment it is asked: sinks, candidates, recent blocks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mmkv.archive import CachedBlock, Snapshot
from mmkv.encode.state import StreamState
from mmkv.encode.thumbnails import SIDE
from mmkv.engine.carry import Carry
from mmkv.engine.rotary import Rotary


class NoFramesError(ValueError):
    """There is no frame in the span that a question is about."""


@dataclass(frozen=True, slots=True)
class Context:
    """A question's view of a stream; it stays the same while the stream continues.

    Attributes:
        past: the archive's snapshot.
        candidates: blocks that may be retrieved, in time order.
        recent: blocks every layer sees, in full precision.
        recent_kv: their rotated keys and values per layer, each `[1, H_kv, tokens, D]`.
        anchor: origin `[A]` at which the recent blocks (or the next one) stand.
        sinks: per layer keys before RoPE and values, `[1, H_kv, s, D]`.
        seconds: time of the newest frame seen.
        carry: state of the layers without keys and values after that frame, this question's own;
            None where the model has none.
        thumbnails: whether frames have small pictures.
    """

    past: Snapshot
    candidates: list[CachedBlock]
    recent: list[CachedBlock]
    recent_kv: list[tuple[Tensor, Tensor]]
    anchor: np.ndarray
    sinks: list[tuple[Tensor, Tensor]]
    seconds: float
    carry: Carry | None = None
    thumbnails: bool = False

    def thumbnail(self, block: CachedBlock) -> bytes | None:
        """Return a small JPEG of a block's first frame; None where there is none."""
        return self.past.side(SIDE, block) if self.thumbnails else None


def capture(
    state: StreamState,
    rotary: Rotary,
    recent_frames: int,
    since: float | None,
    until: float | None,
) -> Context:
    """Return the context of a question asked now.

    Args:
        state: of the stream.
        rotary: the model's angles.
        recent_frames: how many of the newest frames every layer sees.
        since: seconds; frames before it do not exist for this question.
        until: seconds; nor do frames after it.

    Raises:
        NoFramesError: there is no frame in that span.
    """
    state.repair()
    past = state.archive.snapshot()
    low = float("-inf") if since is None else since
    high = float("inf") if until is None else until
    pending = state.pending[-1][0] if state.pending else float("-inf")
    peeked, tail = None, list[CachedBlock]()
    if state.pending and low <= pending <= high:
        peeked = state.peek()
        tail = peeked[1] if peeked else []
    begin = bisect_left(past.blocks, low, key=_end)
    inside = past.blocks[begin : bisect_right(past.blocks, high, key=_end)]
    if not inside and not tail:
        raise NoFramesError(_nothing(state, since, until))
    patch = state.adapter.temporal_patch
    keep = max(0, -(-recent_frames // patch) - len(tail))
    cut = max(0, len(inside) - keep)
    recent = inside[cut:] + tail
    anchor = recent[0].origin if recent else _after(inside[-1])
    window = state.window
    assert window is not None
    return Context(
        past=past,
        candidates=inside[:cut],
        recent=recent,
        recent_kv=[
            _recent_kv(state, past, rotary, layer, inside[cut:], tail)
            for layer in range(len(window.layers))
        ],
        anchor=anchor,
        sinks=[_sinks(layer.sink_key, layer.sink_value, layer.key) for layer in window.layers],
        seconds=(tail or inside)[-1].seconds[1],
        carry=peeked[0].carry if peeked else state.carry_after(inside[-1]),
        thumbnails=state.thumbnails,
    )


def _recent_kv(
    state: StreamState,
    past: Snapshot,
    rotary: Rotary,
    layer: int,
    blocks: list[CachedBlock],
    tail: list[CachedBlock],
) -> tuple[Tensor, Tensor]:
    window = state.window
    assert window is not None
    ring = window.layers[layer].key
    every = blocks + tail
    if not every:
        empty = ring.new_empty((1, ring.shape[1], 0, ring.shape[3]))
        return empty, empty
    gapless = every[-1].index - every[0].index == len(every) - 1
    if gapless and window.holds(every[0].start):
        return window.read(layer, every[0].start, every[-1].start + every[-1].tokens)
    # the question is about an earlier moment: the archive's copy, rotated to the same place
    table = rotary(block_positions(every, [b.origin for b in every]), ring.device, ring.dtype)
    size = (1, ring.shape[1], past.tokens(every), ring.shape[3])
    key, value = ring.new_empty(size), ring.new_empty(size)
    past.fill(layer, every, key[0], value[0], table)
    return key, value


def block_positions(blocks: list[CachedBlock], origins: list[np.ndarray]) -> np.ndarray:
    """Return positions int64 `[A, n]` of these blocks' tokens when they start at these origins."""
    parts = [b.layout.offsets + o[:, None] for b, o in zip(blocks, origins, strict=True)]
    return np.concatenate(parts, axis=1)


def _end(block: CachedBlock) -> float:
    return block.seconds[1]


def _after(block: CachedBlock) -> np.ndarray:
    return block.origin + np.asarray(block.layout.advance)


def _sinks(key: Tensor | None, value: Tensor | None, ring: Tensor) -> tuple[Tensor, Tensor]:
    if key is None or value is None:
        empty = ring.new_empty((1, ring.shape[1], 0, ring.shape[3]))
        return empty, empty
    return key, value


def _nothing(state: StreamState, since: float | None, until: float | None) -> str:
    last = state.archive.last
    if last is None and not state.pending:
        return "the stream has no frames yet; encode or feed some before asking"
    first = state.archive.snapshot().blocks
    begin = first[0].seconds[0] if first else state.pending[0][0]
    end = state.pending[-1][0] if state.pending else (last.seconds[1] if last else 0.0)
    return (
        f"no frames between since={since} and until={until}; "
        f"the stream holds {begin:.2f} s to {end:.2f} s"
    )
