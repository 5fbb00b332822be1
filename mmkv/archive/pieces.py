"""Chosen blocks in pieces: as many neighbours as can be loaded at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.kept import from_bits, places
from mmkv.archive.pages import Page, part_of
from mmkv.archive.reads import PageMemory
from mmkv.codecs import Part


@dataclass(slots=True)
class Piece:
    """Blocks next to each other: in full precision, or stored in pages.

    Attributes:
        tokens: number of tokens as they were encoded.
        count: how many of these are left in a head.
        raw: the blocks in full precision.
        parts: what decoding the stored ones takes.
        left: the tokens that are left, int64 `[H_kv, count]`; None: all.
    """

    tokens: int = 0
    count: int = 0
    raw: list[CachedBlock] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    left: np.ndarray | None = None


def pieces(
    runs: Iterable[tuple[Page | None, list[CachedBlock]]],
    memory: PageMemory,
    layer: int,
    heads: int,
) -> Iterator[Piece]:
    """The pieces of one layer.

    A piece is any number of whole pages, or a run of blocks that are not packed, or a run from a
    page that was thinned.

    Args:
        runs: neighbours that lie in one page, or outside of any.

    Raises:
        StoreError: what the disk holds is damaged, or cannot be read.
    """
    piece = Piece()
    for page, blocks in runs:
        alone = page is None or page.whole is not None
        if piece.tokens and (alone or not piece.parts or piece.left is not None):
            yield piece
            piece = Piece()
        piece.tokens += sum(block.tokens for block in blocks)
        if page is None:
            piece.raw, piece.count = blocks, piece.tokens
            continue
        numbers = [block.index for block in blocks]
        slices = memory.slices(page, layer, numbers)
        piece.parts.append(part_of(page, numbers, slices, heads))
        piece.count += sum(piece.parts[-1].lengths)
        if page.whole is not None:
            bits = from_bits(slices[0], heads, sum(page.whole))
            piece.left = places(bits, page.whole, [number - page.first for number in numbers])
    if piece.tokens:
        yield piece
