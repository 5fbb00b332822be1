"""The past at one moment, which stays as it is while the stream goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmkv.archive.blocks import ArchivedBlock
from mmkv.archive.kept import from_bits, places
from mmkv.archive.page_list import page_of
from mmkv.archive.pages import Page, part_of
from mmkv.archive.reads import PageMemory
from mmkv.archive.summaries import Summaries
from mmkv.codecs import Codec, Part
from mmkv.models.base import Shape


@dataclass(frozen=True, slots=True)
class Packed:
    """What reading pages takes. dtype: of the keys and values handed out."""

    codec: Codec
    shape: Shape
    dtype: torch.dtype
    memory: PageMemory


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The past at one moment. blocks: in time order, without those that a store lost."""

    blocks: list[ArchivedBlock]
    _pages: list[Page]
    _summaries: Summaries
    _packed: Packed

    def load(
        self,
        layer: int,
        chosen: Sequence[ArchivedBlock],
        device: torch.device,
        spent: dict[str, float] | None = None,
    ) -> Tensor:
        """Keys before RoPE and values `[2, H_kv, n, D]` of these blocks, on a device; what was
        evicted is missing. See `read`.
        """
        return self.read(layer, chosen, device, spent)[0]

    def read(
        self,
        layer: int,
        chosen: Sequence[ArchivedBlock],
        device: torch.device,
        spent: dict[str, float] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Keys and values of some blocks, and which tokens these are.

        Args:
            spent: seconds that decoding takes are added to its "unpack".

        Returns:
            keys before RoPE and values `[2, H_kv, n, D]`; where each head's tokens stand among all
            tokens of these blocks, int64 `[H_kv, n]`, or None where all are there.

        Raises:
            StoreError: what the disk holds is damaged, or cannot be read.
        """
        packed, shape = self._packed, self._packed.shape
        pieces: list[Tensor] = []
        left: list[np.ndarray] = []
        at, thinned = 0, False
        waiting: list[Part] = []

        def unpack() -> None:
            if waiting:
                started = time.perf_counter()
                made = packed.codec.decode(waiting, layer, shape, device, packed.dtype)
                pieces.append(made)
                waiting.clear()
                if spent is not None:
                    spent["unpack"] = spent.get("unpack", 0.0) + time.perf_counter() - started

        for page, blocks in self._runs(chosen):
            if page is None:
                unpack()
                for block in blocks:
                    assert block.kv is not None
                    pieces.append(block.kv[layer].to(device, non_blocking=True))
            else:
                numbers = [block.index for block in blocks]
                slices = packed.memory.slices(page, layer, numbers)
                waiting.append(part_of(page, numbers, slices, shape.kv_heads))
            tokens = sum(block.tokens for block in blocks)
            if page is None or page.whole is None:
                own = np.broadcast_to(np.arange(tokens), (shape.kv_heads, tokens))
            else:
                thinned = True
                bits = from_bits(slices[0], shape.kv_heads, sum(page.whole))
                own = places(bits, page.whole, [number - page.first for number in numbers])
            left.append(own + at)
            at += tokens
        unpack()
        if not pieces:
            size = (2, shape.kv_heads, 0, shape.head_dim)
            return torch.empty(size, dtype=packed.dtype, device=device), None
        kv = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
        if not thinned:
            return kv, None
        return kv, torch.from_numpy(np.concatenate(left, axis=1)).to(device)

    def with_keyframes(
        self, chosen: Sequence[ArchivedBlock], among: Sequence[ArchivedBlock]
    ) -> list[ArchivedBlock]:
        """Blocks with those beside which their tokens are understood, in time order.

        Args:
            among: blocks that may be shown, numbered without gaps.
        """
        pages = [page_of(self._pages, block.index) for block in chosen]
        more = {page.keyframe for page in pages if page is not None} - {None}
        more -= {block.index for block in chosen}
        if not more or not among:
            return list(chosen)
        first = among[0].index
        wanted = [number - first for number in more if number is not None]
        brought = [among[place] for place in wanted if 0 <= place < len(among)]
        return sorted([*chosen, *brought], key=lambda block: block.index)

    @property
    def codec(self) -> Codec:
        """How its pages are packed."""
        return self._packed.codec

    @property
    def pages(self) -> Sequence[Page]:
        """Packed pages in time order; the first may begin before the first block."""
        return self._pages

    def page_part(self, layer: int, page: Page) -> Part:
        """A whole page as stored, for its codec.

        Raises:
            StoreError: what the disk holds is damaged, or cannot be read.
        """
        numbers = range(page.first, page.stop)
        slices = self._packed.memory.slices(page, layer, numbers)
        return part_of(page, numbers, slices, self._packed.shape.kv_heads)

    def prefetch(self, layer: int, blocks: Sequence[ArchivedBlock]) -> None:
        """Begin to read what `load` will need; returns at once."""
        for page, run in self._runs(blocks):
            if page is not None:
                self._packed.memory.prefetch(page, layer, [block.index for block in run])

    def summaries(
        self, layer: int, first: int, last: int, device: torch.device | None = None
    ) -> Tensor:
        """Summaries of blocks first…last-1: float32 `[n, m, H_kv, D]`, m at least 1.

        Args:
            device: where they are wanted; None leaves them where the newest of them lies.
        """
        parts = list(self.summary_parts(layer, first, last))
        if device is None:
            device = parts[-1].device if parts else torch.device("cpu")
        return self._summaries.get(layer, first, last, device)

    def summary_parts(self, layer: int, first: int, last: int) -> Iterator[Tensor]:
        """The same in pieces `[n, m, H_kv, D]`, in order, each where it lies: the newest on the
        layer's device, those beyond `index_bytes` in host memory. Nothing is copied.
        """
        return self._summaries.parts(layer, first, last)

    def side(self, name: str, block: ArchivedBlock) -> bytes | None:
        """What was kept under this name beside a block, or None.

        Raises:
            StoreError: what the disk holds is damaged, or cannot be read.
        """
        if block.kv is not None:
            return block.sides.get(name)
        page = page_of(self._pages, block.index)
        return None if page is None else page.side(name, block.index)

    def _runs(
        self, chosen: Sequence[ArchivedBlock]
    ) -> Iterator[tuple[Page | None, list[ArchivedBlock]]]:
        """Neighbours in `chosen` that lie in one page, or outside of any."""
        page: Page | None = None
        run: list[ArchivedBlock] = []
        for block in chosen:
            its = None if block.kv is not None else page_of(self._pages, block.index)
            if run and its is not page:
                yield page, run
                run = []
            page = its
            run.append(block)
        if run:
            yield page, run
