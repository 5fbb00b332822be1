"""The stream's past: an open page in full precision, packed pages in memory, and on disk.

One writer, the stream; a question works on a snapshot, which keeps what it refers to alive.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkv.archive.blocks import ArchivedBlock
from mmkv.archive.pages import Page, pack, stripped
from mmkv.archive.reads import PageMemory, ReadCounts
from mmkv.archive.snapshot import Packed, Snapshot
from mmkv.archive.summaries import SummaryIndex
from mmkv.codecs import Codec
from mmkv.models.base import Shape
from mmkv.slabs import Slabs

log = logging.getLogger("mmkv.archive")

_LARGE, _SMALL, _MANY = 512, 64, 128  # tokens per page, where a block has many, and where not


@dataclass(frozen=True, slots=True)
class PageSize:
    """When a page is closed: at this many tokens, or after this many seconds of the stream.

    tokens: None for 512 where a block has 128 or more, else 64.
    """

    tokens: int | None = None
    seconds: float = 60.0

    def full(self, blocks: Sequence[ArchivedBlock]) -> bool:
        """Whether these blocks make a page."""
        enough = self.tokens or (_LARGE if blocks[0].tokens >= _MANY else _SMALL)
        held = sum(block.tokens for block in blocks)
        return held >= enough or blocks[-1].seconds[1] - blocks[0].seconds[0] >= self.seconds


class Archive:
    """Blocks in time order; beyond `limit` bytes the oldest are forgotten.

    Args:
        codec: how pages are packed. shape, dtype: of the model. limit: bytes of keys and values
            kept in host memory, None for all. page: when pages are closed.
        index_bytes: bytes of summaries on the devices, None for all.
    """

    def __init__(
        self,
        codec: Codec,
        shape: Shape,
        dtype: torch.dtype,
        limit: int | None = None,
        page: PageSize | None = None,
        index_bytes: int | None = None,
    ) -> None:
        self.codec = codec
        self._limit = limit
        self._page_size = page or PageSize()
        self._payloads = Slabs(torch.uint8, pinned=False, limit=limit)
        self._blocks: list[ArchivedBlock] = []
        self._pages: list[Page] = []
        self._summaries = SummaryIndex(shape.layers, index_bytes)
        self._memory = PageMemory(None)
        self._packed = Packed(codec, shape, dtype, self._memory)
        self._bytes = 0  # of packed blocks not forgotten
        self.first = 0

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
    def nbytes(self) -> int:
        """Bytes of keys and values in host memory, packed or not."""
        return self._bytes + sum(block.nbytes for block in self._open())

    @property
    def index_bytes(self) -> int:
        """Bytes of the summaries."""
        return self._summaries.nbytes

    @property
    def reads(self) -> ReadCounts:
        """Where questions found what they needed."""
        return self._memory.counts

    def append(self, blocks: Sequence[ArchivedBlock], summaries: Sequence[Tensor]) -> None:
        """Add blocks, with their keys and values; `summaries` holds per layer
        `[len(blocks), H_kv, D]` or `[len(blocks), m, H_kv, D]`.
        """
        rows = [layer if layer.ndim == 4 else layer[:, None] for layer in summaries]
        self._summaries.append(len(self), rows)
        for block in blocks:
            self._blocks.append(block)
            if self._page_size.full(self._open()):
                self._close_page()
        self._forget()

    def close_page(self) -> None:
        """Pack what the open page holds."""
        if self._open():
            self._close_page()

    def snapshot(self) -> Snapshot:
        """The blocks and summaries as they are now."""
        return Snapshot(list(self._blocks), list(self._pages), self._summaries.view(), self._packed)

    def _open(self) -> list[ArchivedBlock]:
        """Blocks of the open page."""
        closed = max(self._pages[-1].stop if self._pages else 0, self.first)
        return self._blocks[closed - self.first :]

    def _close_page(self) -> None:
        blocks = self._open()
        page = pack(blocks, self.codec, self._payloads)
        # from here on the blocks are the page's, also where an interrupt comes in between
        self._pages.append(page)
        at = page.first - self.first
        self._blocks[at : at + len(blocks)] = map(stripped, blocks)
        self._bytes += sum(page.bytes_of(block.index) for block in blocks)

    def _forget(self) -> None:
        if self._limit is None or self.nbytes <= self._limit:
            return
        if self.first == 0:
            log.warning(
                "the archive reached its limit of %d bytes; from now on the oldest frames are "
                "forgotten (raise max_ram to keep more)",
                self._limit,
            )
        held, drop = self.nbytes, 0
        while held > self._limit and drop < len(self._blocks) - 1:
            block = self._blocks[drop]
            page = self._pages[0] if self._pages and block.kv is None else None
            size = block.nbytes if page is None else page.bytes_of(block.index)
            held -= size
            drop += 1
            if page is not None:
                self._bytes -= size
                if page.stop == block.index + 1:
                    del self._pages[0]
        del self._blocks[:drop]
        self.first += drop
        self._summaries.forget(self.first)
