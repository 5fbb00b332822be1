"""A block of the past: its number and place, without its keys and values once it is packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mmkv.models.block import Layout

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY_KINDS = ("float16",)  # of numbers that a store keeps summaries in
STATE, EMBEDS = "state", "embeds"  # sides that a carried state is restored from


@dataclass(frozen=True, slots=True)
class CachedBlock:
    """One block of the past.

    Attributes:
        index: its number in the stream.
        start: its first token's number.
        frame: its first frame's number.
        frames: how many frames it shows.
        seconds: times of its first and last frame.
        layout: where its tokens are placed.
        origin: int64 `[A]`, its position on each RoPE axis.
        kv: host tensor `[L, 2, H_kv, T, D]`, keys before RoPE, and values; None once its page is
            packed, when `Snapshot.load` reads them.
        sides: bytes kept beside it under a name of at most 16 ASCII letters, such as a thumbnail;
            empty once its page is packed, when `Snapshot.side` reads them.
        mass: host tensor float32 `[L, H_kv, T]`, the attention that its tokens got when they were
            encoded; None where nothing observed them, or once its page is packed.
        salience: host tensor float32 `[T]`, how much its tokens matter, for codecs that use it;
            or None.
    """

    index: int
    start: int
    frame: int
    frames: int
    seconds: tuple[float, float]
    layout: Layout
    origin: np.ndarray
    kv: Tensor | None = None
    sides: Mapping[str, bytes] = field(default_factory=dict)
    mass: Tensor | None = None
    salience: Tensor | None = None

    @property
    def tokens(self) -> int:
        return int(self.layout.offsets.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes that it holds itself: none once its page is packed."""
        parts = (self.kv, self.mass, self.salience)
        held = sum(part.nbytes for part in parts if part is not None)
        return held + sum(len(data) for data in self.sides.values())


def index_of(block: CachedBlock) -> int:
    """Its number in the stream, to search and sort by."""
    return block.index
