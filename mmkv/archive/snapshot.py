"""The past at one moment, which does not change while the stream continues."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkv.archive.blocks import CachedBlock, index_of
from mmkv.archive.pages import Page, part_of
from mmkv.archive.pieces import Piece, pieces
from mmkv.archive.reads import PageMemory
from mmkv.archive.summaries import Summaries
from mmkv.archive.timeline import page_of
from mmkv.codecs import Codec, Part
from mmkv.kernels.rotate_write import rotate_write
from mmkv.models.layers import Shape

Table = tuple[Tensor, Tensor]  # cosines and sines


@dataclass(frozen=True, slots=True)
class Packed:
    """What reading pages takes.

    Attributes:
        dtype: of the keys and values returned.
    """

    codec: Codec
    shape: Shape
    dtype: torch.dtype
    memory: PageMemory


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The past at one moment.

    Attributes:
        blocks: in time order, without those that a store lost.
    """

    blocks: list[CachedBlock]
    _pages: list[Page]
    _summaries: Summaries
    _packed: Packed

    def load(
        self,
        layer: int,
        chosen: Sequence[CachedBlock],
        device: torch.device,
        spent: dict[str, float] | None = None,
    ) -> Tensor:
        """Keys before RoPE and values `[2, H_kv, n, D]` of these blocks, without evicted tokens.

        See `read`.
        """
        return self.read(layer, chosen, device, spent)[0]

    def read(
        self,
        layer: int,
        chosen: Sequence[CachedBlock],
        device: torch.device,
        spent: dict[str, float] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Keys and values of some blocks, and which tokens these are.

        Args:
            spent: seconds that decoding takes are added to its "unpack".

        Returns:
            keys before RoPE and values `[2, H_kv, n, D]`; and each head's tokens as places among
            all tokens of these blocks, int64 `[H_kv, n]`, or None if none is missing.

        Raises:
            StoreError: what the disk holds is damaged, or cannot be read.
        """
        size = (2, self._packed.shape.kv_heads, self.tokens(chosen), self._packed.shape.head_dim)
        out = torch.empty(size, dtype=self._packed.dtype, device=device)
        return out, self.fill(layer, chosen, out[0], out[1], None, spent)

    def tokens(self, chosen: Sequence[CachedBlock]) -> int:
        """How many tokens of these blocks are left."""
        return sum(
            sum(block.tokens for block in blocks)
            if page is None
            else sum(page.lengths[block.index - page.first] for block in blocks)
            for page, blocks in self._runs(chosen)
        )

    def fill(
        self,
        layer: int,
        chosen: Sequence[CachedBlock],
        key: Tensor,
        value: Tensor,
        rotation: Table | None,
        spent: dict[str, float] | None = None,
    ) -> Tensor | None:
        """Write keys and values of some blocks into given tensors.

        Args:
            key, value: `[H_kv, n, D]` on a device, to be filled; n as `tokens` says.
            rotation: cosines and sines `[tokens, R]` of all tokens of these blocks, for the keys;
                None: keys before RoPE.
            spent: seconds that decoding takes are added to its "unpack".

        Returns:
            each head's tokens as places among all tokens of these blocks, int64 `[H_kv, n]`, or
            None if none is missing.

        Raises:
            StoreError: what the disk holds is damaged, or cannot be read.
        """
        packed, left = self._packed, []
        at = seen = 0  # tokens left, and tokens
        for piece in pieces(self._runs(chosen), packed.memory, layer, packed.shape.kv_heads):
            span = slice(at, at + piece.count)
            own, angles = (key[:, span], value[:, span]), rotation
            if piece.left is not None:
                places = torch.from_numpy(piece.left).to(key.device)
            if angles is not None:
                angles = (
                    angles[0][seen : seen + piece.tokens],
                    angles[1][seen : seen + piece.tokens],
                )
                if piece.left is not None:
                    angles = (angles[0][places], angles[1][places])
            started = time.perf_counter()
            if piece.parts and piece.left is None:
                packed.codec.decode_into(piece.parts, layer, packed.shape, *own, angles)
            else:
                kv = self._states(piece, layer, key)
                rotate_write(kv[None, 0], kv[None, 1], angles, own[0][None], own[1][None], 0)
            if piece.parts and spent is not None:
                spent["unpack"] = spent.get("unpack", 0.0) + time.perf_counter() - started
            if piece.left is not None:
                left.append(places + seen)
            else:
                every = torch.arange(piece.tokens, device=key.device) + seen
                left.append(every.expand(key.shape[0], -1))
            at, seen = at + piece.count, seen + piece.tokens
        return torch.cat(left, dim=1) if at < seen else None

    def _states(self, piece: Piece, layer: int, like: Tensor) -> Tensor:
        """Keys before RoPE and values `[2, H_kv, count, D]`."""
        packed = self._packed
        if piece.parts:
            return packed.codec.decode(piece.parts, layer, packed.shape, like.device, like.dtype)
        held = [block.kv[layer] for block in piece.raw if block.kv is not None]
        return torch.cat(held, dim=2).to(like.device, non_blocking=True)

    def with_keyframes(
        self, chosen: Sequence[CachedBlock], among: Sequence[CachedBlock]
    ) -> list[CachedBlock]:
        """Blocks together with their keyframes, if they have any, in time order.

        Args:
            among: blocks that may be shown, in time order.
        """
        pages = [page_of(self._pages, block.index) for block in chosen]
        more = {page.keyframe for page in pages if page is not None} - {None}
        more -= {block.index for block in chosen}
        brought = []
        for number in more:
            place = bisect_left(among, number or 0, key=index_of)
            if place < len(among) and among[place].index == number:  # else it is lost, or too old
                brought.append(among[place])
        if not brought:
            return list(chosen)
        return sorted([*chosen, *brought], key=index_of)

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

    def prefetch(self, layer: int, blocks: Sequence[CachedBlock]) -> None:
        """Begin reading what `load` will need; returns at once."""
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
        """The same less the centre, in pieces float16 `[n, m, H_kv, D]`, in order, none copied.

        Each is where it lies: the newest on the layer's device, those beyond `index_bytes` in host
        memory.
        """
        return self._summaries.parts(layer, first, last)

    def summary_centre(self, layer: int) -> Tensor:
        """What was subtracted from the pieces of `summary_parts`, float32 `[H_kv, D]`."""
        return self._summaries.centre[layer]

    def side(self, name: str, block: CachedBlock) -> bytes | None:
        """What was kept under this name beside a block, or None.

        Raises:
            StoreError: what the disk holds is damaged, or cannot be read.
        """
        if block.kv is not None:
            return block.sides.get(name)
        page = page_of(self._pages, block.index)
        return None if page is None else page.side(name, block.index)

    def _runs(
        self, chosen: Sequence[CachedBlock]
    ) -> Iterator[tuple[Page | None, list[CachedBlock]]]:
        """Runs of neighbours in `chosen` that lie in one page, or outside any."""
        page: Page | None = None
        run: list[CachedBlock] = []
        for block in chosen:
            its = None if block.kv is not None else page_of(self._pages, block.index)
            if run and its is not page:
                yield page, run
                run = []
            page = its
            run.append(block)
        if run:
            yield page, run
