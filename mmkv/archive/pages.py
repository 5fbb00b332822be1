"""A page: consecutive blocks packed together, all layers, in host memory, on disk, or both.

torch is imported only where pages are packed or unpacked: what a store holds can be told without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.kept import bit_bytes, to_bits

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mmkv.archive.slabs import Slabs
    from mmkv.archive.thinning import Thinning
    from mmkv.codecs import Codec, PackedLayer, Part


class Stored(Protocol):
    """A page's bytes on disk."""

    def read(self, row: int, layer: int) -> np.ndarray:
        """One slice, uint8, its checksum compared.

        Row 0 is what the blocks share, row i + 1 is the page's block i.
        """

    def side_sizes(self) -> dict[str, int]:
        """Bytes that are kept beside the page's blocks, by name."""

    def side(self, name: str, block: int) -> bytes | None:
        """What was kept under this name beside this block."""


_NOTHING: Mapping[str, bytes] = MappingProxyType({})  # one for all blocks of a long stream


@dataclass(slots=True, eq=False)
class Page:
    """Consecutive blocks, packed.

    Attributes:
        first, stop: numbers of its first block and of the one after its last.
        lengths: packed tokens of each block.
        sizes: bytes of each slice, uint32 `[1 + blocks, L]`; row 0 is what the blocks share.
        payload: the slices one after the other, uint8, row by row; None where only the disk has
            them.
        stored: the same on disk; None before it is written, or without a store.
        sides: per block the bytes kept beside it; empty where only the disk has them.
        slab: what the payload is part of.
        whole: tokens of each block as it was encoded, where some were evicted; each layer's shared
            slice then begins with a bit for every token of every head (`kept.py`).
        keyframe: number of the block that the page's others are retrieved with, if there is one.
    """

    first: int
    lengths: tuple[int, ...]
    sizes: np.ndarray
    payload: np.ndarray | None = None
    stored: Stored | None = None
    sides: tuple[dict[str, bytes], ...] = ()
    slab: int = 0
    whole: tuple[int, ...] | None = None
    keyframe: int | None = None

    @property
    def stop(self) -> int:
        return self.first + len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the payload, wherever it is."""
        return int(self.sizes.sum(dtype=np.int64))

    def bytes_of(self, block: int) -> int:
        """Bytes of one of its blocks; what its blocks share counts with the last."""
        row = block - self.first + 1
        shared = int(self.sizes[0].sum()) if block == self.stop - 1 else 0
        sides = self.sides[row - 1].values() if self.sides else ()
        return int(self.sizes[row].sum()) + shared + sum(map(len, sides))

    def slice(self, row: int, layer: int) -> tuple[int, int]:
        """Where a slice begins and ends in the payload."""
        before = int(self.sizes[:row].sum(dtype=np.int64)) + int(self.sizes[row, :layer].sum())
        return before, before + int(self.sizes[row, layer])

    def side(self, name: str, block: int) -> bytes | None:
        """What was kept under this name beside this block, or None."""
        sides = self.sides  # read once: another thread may release them
        if sides:
            return sides[block - self.first].get(name)
        return None if self.stored is None else self.stored.side(name, block)


@dataclass(frozen=True, slots=True)
class StoredPage:
    """What a store holds of a page.

    Attributes:
        summaries: of all its blocks, as they were written.
    """

    page: Page
    blocks: list[CachedBlock]
    summaries: bytes


def pack(
    blocks: Sequence[CachedBlock],
    codec: Codec,
    memory: Slabs,
    devices: Sequence[torch.device] = (),
    thinning: Thinning | None = None,
) -> Page:
    """Thin blocks that still have their keys and values, and pack them into one page in `memory`.

    Where that is work for a GPU, it is done on the layers' devices.
    """
    import torch

    lengths = tuple(block.tokens for block in blocks)
    held = [block.kv for block in blocks if block.kv is not None]
    assert len(held) == len(blocks)
    states = [torch.cat(held, dim=3)]  # [L, 2, H_kv, tokens, D]
    if devices and (codec.computes or thinning is not None):
        states = _on_devices(states[0], devices)
    judged = [block.salience for block in blocks if block.salience is not None]
    salience = torch.cat(judged) if len(judged) == len(blocks) else None
    thinned = None if thinning is None else thinning.thin(blocks, states)
    whole = keyframe = None
    if thinned is not None:
        whole, lengths, states = lengths, thinned.lengths, thinned.states
        keyframe = None if thinned.keyframe is None else blocks[thinned.keyframe].index
    rows: list[list[np.ndarray]] = [[] for _ in range(len(blocks) + 1)]
    packed: list[PackedLayer] = []
    for group in states:
        layers = range(len(packed), len(packed) + len(group))
        matters = None
        if salience is not None:
            kept = [None if thinned is None else thinned.kept[layer] for layer in layers]
            matters = [salience if k is None else salience_left(salience, k) for k in kept]
        packed += codec.encode_layers(layers, group, list(lengths), matters)
    for layer, own in enumerate(packed):
        shared = own.shared
        if thinned is not None:
            shared = np.concatenate([to_bits(thinned.kept[layer]), shared])
        for row, part in zip(rows, [shared, *own.blocks], strict=True):
            row.append(part)
    sizes = np.array([[part.nbytes for part in row] for row in rows], dtype=np.uint32)
    buffer = memory.take((int(sizes.sum(dtype=np.int64)),))
    payload = buffer.numpy()
    at = 0
    for row in rows:
        for part in row:
            payload[at : at + part.nbytes] = part
            at += part.nbytes
    slab = buffer.untyped_storage().data_ptr()
    sides = tuple(dict(block.sides) for block in blocks)
    if not any(sides):
        sides = ()
    first = blocks[0].index
    return Page(first, lengths, sizes, payload, None, sides, slab, whole, keyframe)


def _on_devices(states: Tensor, devices: Sequence[torch.device]) -> list[Tensor]:
    """Layers `[L, ...]` on their devices; consecutive ones on one device are one piece."""
    counts = [len(list(run)) for _, run in groupby(devices)]
    wheres = [where for where, _ in groupby(devices)]
    parts = zip(states.split(counts), wheres, strict=True)
    return [part.to(where, non_blocking=True) for part, where in parts]


def stripped(block: CachedBlock) -> CachedBlock:
    """The block without what its page holds from now on."""
    return replace(block, kv=None, sides=_NOTHING, mass=None, salience=None)


def salience_left(salience: Tensor, kept: np.ndarray) -> Tensor:
    """How much the remaining tokens matter, `[K]`: the mean over heads, which may keep others.

    Args:
        salience: `[T]`.
        kept: bool `[H_kv, T]`, equally many in every head.
    """
    import torch

    places = torch.from_numpy(np.nonzero(kept)[1].reshape(len(kept), -1))
    return salience[places].mean(dim=0)


def part_of(page: Page, blocks: Sequence[int], slices: Sequence[np.ndarray], heads: int) -> Part:
    """What a codec needs to decode blocks of a page: the shared slice comes first in `slices`."""
    from mmkv.codecs.base import Part

    skip = 0 if page.whole is None else bit_bytes(heads, sum(page.whole))
    lengths = [page.lengths[block - page.first] for block in blocks]
    return Part(slices[0][skip:], slices[1:], lengths)
