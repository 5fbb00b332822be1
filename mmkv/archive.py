"""The stream's past in host memory: every block's keys (before RoPE) and values, and its summaries.

One writer, the stream; a question works on a snapshot, which keeps what it refers to alive.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmkv.models.base import Layout

log = logging.getLogger("mmkv.archive")

_PAGE = 1024  # summaries allocated at a time


@dataclass(frozen=True, slots=True)
class ArchivedBlock:
    """One block of the past.

    index: its number in the stream. start: its first token's number. frame: its first frame's.
    frames: how many it shows. seconds: times of its first and last frame.
    origin: int64 `[A]`. kv: host tensor `[L, 2, H_kv, T, D]`, keys before RoPE.
    """

    index: int
    start: int
    frame: int
    frames: int
    seconds: tuple[float, float]
    layout: Layout
    origin: np.ndarray
    kv: Tensor

    @property
    def tokens(self) -> int:
        return int(self.kv.shape[3])


class Archive:
    """Blocks in time order; beyond `limit` bytes the oldest are forgotten.

    Args:
        layers: number of layers. limit: bytes of keys and values kept, None for all.
    """

    def __init__(self, layers: int, limit: int | None) -> None:
        self._limit = limit
        self._blocks: list[ArchivedBlock] = []
        self._summaries: list[dict[int, Tensor]] = [{} for _ in range(layers)]
        self.first = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return self.first + len(self._blocks)

    @property
    def last(self) -> ArchivedBlock | None:
        """The newest block."""
        return self._blocks[-1] if self._blocks else None

    @property
    def oldest(self) -> ArchivedBlock | None:
        """The oldest block not forgotten."""
        return self._blocks[0] if self._blocks else None

    @property
    def index_bytes(self) -> int:
        """Bytes of the summaries."""
        return sum(page.nbytes for pages in self._summaries for page in list(pages.values()))

    def append(self, blocks: list[ArchivedBlock], summaries: list[Tensor]) -> None:
        """Add blocks; `summaries` holds per layer `[len(blocks), H_kv, D]`."""
        at = len(self)
        for pages, rows in zip(self._summaries, summaries, strict=True):
            done = 0
            while done < len(blocks):
                number, row = divmod(at + done, _PAGE)
                if number not in pages:
                    pages[number] = rows.new_empty((_PAGE, *rows.shape[1:]))
                take = min(len(blocks) - done, _PAGE - row)
                pages[number][row : row + take] = rows[done : done + take]
                done += take
        self._blocks.extend(blocks)
        self.nbytes += sum(block.kv.nbytes for block in blocks)
        self._forget()

    def snapshot(self) -> Snapshot:
        """The blocks and summaries as they are now."""
        return Snapshot(list(self._blocks), [dict(pages) for pages in self._summaries])

    def _forget(self) -> None:
        if self._limit is None or self.nbytes <= self._limit:
            return
        if self.first == 0:
            log.warning(
                "the archive reached its limit of %d bytes; from now on the oldest frames are "
                "forgotten (raise max_ram to keep more)",
                self._limit,
            )
        drop = 0
        while self.nbytes > self._limit and drop < len(self._blocks) - 1:
            self.nbytes -= self._blocks[drop].kv.nbytes
            drop += 1
        del self._blocks[:drop]
        self.first += drop
        for pages in self._summaries:
            for number in [n for n in pages if (n + 1) * _PAGE <= self.first]:
                del pages[number]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The past at one moment. blocks: in time order, numbered without gaps."""

    blocks: list[ArchivedBlock]
    _pages: list[dict[int, Tensor]]

    def summaries(self, layer: int, first: int, last: int) -> Tensor:
        """Mean keys `[last - first, 1, H_kv, D]` of blocks first…last-1 in one layer, float32."""
        pages = self._pages[layer]
        parts = []
        while first < last:
            number, row = divmod(first, _PAGE)
            take = min(last - first, _PAGE - row)
            parts.append(pages[number][row : row + take])
            first += take
        return torch.cat(parts)[:, None]

    def prefetch(self, layer: int, blocks: Sequence[ArchivedBlock]) -> None:
        """Begin to read what `load` will be asked for; here everything is in memory already."""

    def load(self, layer: int, chosen: list[ArchivedBlock], device: torch.device) -> Tensor:
        """Keys and values `[2, H_kv, sum of tokens, D]` of these blocks, on a device."""
        return torch.cat([block.kv[layer] for block in chosen], dim=2).to(device, non_blocking=True)
