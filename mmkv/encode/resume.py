"""What a store keeps of a stream besides its blocks, and refilling a window from the blocks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mmkv.archive import Archive, CachedBlock, Snapshot
from mmkv.archive.blocks import index_of
from mmkv.archive.kept import nearest
from mmkv.encode.window import Window
from mmkv.kernels.rotate_write import tokens_of
from mmkv.models.grid import Grid
from mmkv.store import DamageError, Store

Frame = tuple[float, Tensor]  # seconds, uint8 [H, W, 3]


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a stream's blocks do not contain.

    Attributes:
        grid: of its frames.
        first_seconds: time of the first.
        block_tokens: what its window was made for.
        far_distance: the window's, once it has one.
    """

    grid: Grid
    first_seconds: float
    block_tokens: int
    far_distance: int | None


def write_header(store: Store | None, header: StreamHeader) -> None:
    """Record the header in the store, if there is one and it is being written."""
    if store is not None and store.writer is not None:
        store.writer.note(**asdict(header))


def read_header(store: Store) -> StreamHeader | None:
    """Read a store's header; None before the first frame."""
    meta = store.meta
    if meta.get("grid") is None:
        return None
    return StreamHeader(
        Grid(**meta["grid"]),
        float(meta["first_seconds"]),
        int(meta["block_tokens"]),
        meta.get("far_distance"),
    )


def write_waiting(store: Store, after: int, pending: list[Frame]) -> None:
    """Keep the frames after the first `after` blocks, which do not fill a block yet.

    Raises:
        StoreError: they cannot be written.
    """
    store.keep_waiting(after, [(seconds, frame.numpy()) for seconds, frame in pending])


def read_waiting(store: Store, after: int) -> list[Frame]:
    """Read the frames that were kept after the first `after` blocks."""
    return [(seconds, torch.from_numpy(frame)) for seconds, frame in store.waiting(after)]


def restore_window(
    window: Window, archive: Archive, far_distance: int | None, stop: int | None = None
) -> DamageError | None:
    """Write the archive's newest blocks into the ring, at their own positions.

    Where tokens were evicted, the nearest kept ones of their block stand in for them; blocks that
    a store has lost leave a hole.

    Args:
        window: without these blocks.
        archive: has them.
        far_distance: of the stream's window.
        stop: number of the last block to be written; None: the newest.

    Returns:
        what is wrong with the blocks, if they are damaged: all of the window is then a hole, and
        questions read from the archive.

    Raises:
        StoreError: they cannot be read.
    """
    past = archive.snapshot()
    held = past.blocks
    if stop is not None:
        held = held[: bisect_right(held, stop, key=index_of)]
    if not held:
        return None
    end = held[-1].start + held[-1].tokens
    low = max(window.seen, end - window.local)
    blocks = [b for b in held[-window.local :] if b.start + b.tokens > low]
    if not blocks:
        return None
    window.far_distance = far_distance
    damage = None
    try:
        _restore(window, past, blocks, low)
    except DamageError as error:
        window.hole = window.whole = end
        damage = error.with_traceback(None)  # which leads to all of the stream
    window.seen = end
    return damage


def _restore(window: Window, past: Snapshot, blocks: Sequence[CachedBlock], low: int) -> None:
    """Write blocks, from token `low` on, into the rings."""
    expected, end = low, blocks[-1].start + blocks[-1].tokens
    for run in _runs(blocks):
        begin, stop = max(low, run[0].start), run[-1].start + run[-1].tokens
        if begin > expected:
            window.hole = begin
        expected = stop
        skip = begin - run[0].start
        positions = np.concatenate([b.layout.offsets + b.origin[:, None] for b in run], axis=1)
        for layer, ring in enumerate(window.layers):
            kv, left = past.read(layer, run, ring.key.device)
            if left is not None:
                kv = _filled(kv, left, [block.tokens for block in run])
                window.whole = end
            kv = kv[:, None, :, skip:]
            window.restore(layer, stop, kv[0], kv[1], positions[:, skip:])


def _runs(blocks: Sequence[CachedBlock]) -> list[list[CachedBlock]]:
    """Split blocks into runs without a gap."""
    found: list[list[CachedBlock]] = []
    for block in blocks:
        if not found or found[-1][-1].index + 1 != block.index:
            found.append([])
        found[-1].append(block)
    return found


def _filled(kv: Tensor, left: Tensor, lengths: list[int]) -> Tensor:
    """Fill blocks up: every evicted token becomes a copy of its block's nearest kept one.

    Args:
        kv: `[2, H_kv, n, D]`, the kept tokens.
        left: int64 `[H_kv, n]`, which tokens these are.
        lengths: tokens of the whole blocks, T in all.

    Returns:
        keys and values `[2, H_kv, T, D]`.
    """
    kept = np.zeros((len(left), sum(lengths)), dtype=bool)
    np.put_along_axis(kept, left.cpu().numpy(), True, axis=1)
    ends = np.cumsum([0, *lengths])
    parts = [nearest(kept[:, a:b]) + a for a, b in pairwise(ends) if b > a]
    places = np.cumsum(kept, axis=1) - 1  # of a kept token, its place in `kv`
    source = np.take_along_axis(places, np.concatenate(parts, axis=1), axis=1)
    return tokens_of(kv[0], kv[1], torch.from_numpy(source).to(kv.device))
