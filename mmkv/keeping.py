"""What a store keeps of a stream beside its blocks, and a window filled from it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mmkv.archive import Archive
from mmkv.models.base import Grid
from mmkv.store import Store
from mmkv.window import Window

Frame = tuple[float, Tensor]  # seconds, uint8 [H, W, 3]


@dataclass(frozen=True, slots=True)
class Begun:
    """What a stream's blocks cannot tell. grid: of its frames. first_seconds: time of the first.
    block_tokens: what its window was made for. far_distance: the window's, once it has one.
    """

    grid: Grid
    first_seconds: float
    block_tokens: int
    far_distance: int | None


def note(store: Store | None, begun: Begun) -> None:
    """Keep this in a store that is written."""
    if store is not None and store.writer is not None:
        store.writer.note(**asdict(begun))


def noted(store: Store) -> Begun | None:
    """What a store keeps of its stream; None before the first frame."""
    meta = store.meta
    if meta.get("grid") is None:
        return None
    return Begun(
        Grid(**meta["grid"]),
        float(meta["first_seconds"]),
        int(meta["block_tokens"]),
        meta.get("far_distance"),
    )


def keep_waiting(store: Store, after: int, pending: list[Frame]) -> None:
    """Keep frames that make no block yet, behind this many blocks.

    Raises:
        StoreError: they cannot be written.
    """
    store.keep_waiting(after, [(seconds, frame.numpy()) for seconds, frame in pending])


def waiting(store: Store, after: int) -> list[Frame]:
    """Frames that were kept behind this many blocks."""
    return [(seconds, torch.from_numpy(frame)) for seconds, frame in store.waiting(after)]


def refill(window: Window, archive: Archive, far_distance: int | None) -> None:
    """Bring the archive's newest blocks into the ring, at their own positions.

    Raises:
        StoreError: they cannot be read.
    """
    last = archive.last
    if last is None:
        return
    end = last.start + last.tokens
    low = max(window.seen, end - window.local)
    past = archive.snapshot()
    blocks = [b for b in past.blocks[-window.local :] if b.start + b.tokens > low]
    if not blocks:
        return
    window.far_distance = far_distance
    skip = max(0, low - blocks[0].start)
    positions = np.concatenate([b.layout.offsets + b.origin[:, None] for b in blocks], axis=1)
    for layer, ring in enumerate(window.layers):
        kv = past.load(layer, blocks, ring.key.device)[:, None, :, skip:]
        window.restore(layer, end, kv[0], kv[1], positions[:, skip:])
    window.seen = end
