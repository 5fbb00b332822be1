"""Snapshots of a stream's carried state, and the input embeddings of the blocks between them.

A recurrent state cannot go back in time. From the last snapshot before a moment, the blocks up to
that moment pass through the model again (`replay.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mmkv.archive import CachedBlock, Snapshot
from mmkv.archive.blocks import EMBEDS, STATE
from mmkv.engine.carry import Carry
from mmkv.models.block import Block

_LEAST, _MOST = 32, 512  # frames between two snapshots, unless told


def frames_apart(state: int, block: int, frames: int) -> int:
    """Choose the frames between two snapshots, so that they take as much as the embeddings between.

    Args:
        state: bytes of a snapshot.
        block: bytes of a block's embeddings.
        frames: in a block.
    """
    return min(max(-(-state * frames // block), _LEAST), _MOST)


class StateLog(ABC):
    """What was kept, of which moments.

    Args:
        every: blocks between two snapshots, at least; they are taken at the ends of chunks.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._since = 0  # blocks after the last snapshot

    def begin(self) -> None:
        """Take a snapshot with the next chunk; for a stream that goes on from a store."""
        self._since = self.every

    def add(self, archived: Sequence[CachedBlock], blocks: Sequence[Block], carry: Carry) -> None:
        """Keep what belongs to a chunk, before it is archived.

        Args:
            archived: its blocks.
            blocks: the same, with their embeddings.
            carry: the state after the last of them.
        """
        for place, block in zip(archived, blocks, strict=True):
            self._keep_embeds(place.index, block)
        self._since += len(blocks)
        if self._since >= self.every:
            self._keep_state(archived[-1].index, blocks[-1], carry)
            self._since = 0

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes in host memory that are not counted elsewhere."""

    @abstractmethod
    def _keep_embeds(self, index: int, block: Block) -> None: ...

    @abstractmethod
    def _keep_state(self, index: int, block: Block, carry: Carry) -> None: ...

    @abstractmethod
    def state(self, past: Snapshot, block: CachedBlock, like: Carry) -> Carry | None:
        """Return the state after a block, if a snapshot was taken there.

        Args:
            past: the archive's.
            block: of the archive.
            like: a state of the model.

        Raises:
            StoreError: it was, and is damaged or cannot be read.
        """

    @abstractmethod
    def embeds(self, past: Snapshot, block: CachedBlock, like: Tensor) -> Tensor | None:
        """Return a block's input embeddings `[T, D]`, of the type and device of `like` `[D]`.

        Raises:
            StoreError: they are damaged or cannot be read.
        """


class MemoryLog(StateLog):
    """In host memory; beyond `limit` bytes (None: no limit) the oldest are dropped.

    The newest snapshot and what follows it always stay.
    """

    def __init__(self, every: int, limit: int | None) -> None:
        super().__init__(every)
        self._limit = limit
        self._states: dict[int, list[Tensor]] = {}
        self._embeds: dict[int, Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of snapshots and embeddings."""
        states = sum(t.nbytes for tensors in list(self._states.values()) for t in tensors)
        return states + sum(t.nbytes for t in list(self._embeds.values()))

    def _keep_embeds(self, index: int, block: Block) -> None:
        self._embeds[index] = block.embeds.to("cpu", copy=True)

    def _keep_state(self, index: int, block: Block, carry: Carry) -> None:
        self._states[index] = [tensor.to("cpu", copy=True) for tensor in carry.tensors()]
        while self._limit is not None and self.nbytes > self._limit and len(self._states) > 1:
            del self._states[min(self._states)]
            oldest = min(self._states)
            self._embeds = {at: kept for at, kept in self._embeds.items() if at > oldest}

    def state(self, past: Snapshot, block: CachedBlock, like: Carry) -> Carry | None:
        """Return the state after a block, if a snapshot was taken there."""
        held = self._states.get(block.index)
        return None if held is None else like.with_tensors(held)

    def embeds(self, past: Snapshot, block: CachedBlock, like: Tensor) -> Tensor | None:
        """Return a block's input embeddings `[T, D]`."""
        held = self._embeds.get(block.index)
        return None if held is None else held.to(like)


class StoreLog(StateLog):
    """In the stream's store, beside the blocks."""

    @property
    def nbytes(self) -> int:
        """Nothing: these bytes are the archive's and the store's."""
        return 0

    def _keep_embeds(self, index: int, block: Block) -> None:
        block.sides[EMBEDS] = _to_bytes(block.embeds)

    def _keep_state(self, index: int, block: Block, carry: Carry) -> None:
        block.sides[STATE] = b"".join(map(_to_bytes, carry.tensors()))

    def state(self, past: Snapshot, block: CachedBlock, like: Carry) -> Carry | None:
        """Return the state after a block, if a snapshot was taken there.

        Raises:
            StoreError: it was, and is damaged or cannot be read.
        """
        data = past.side(STATE, block)
        if data is None:
            return None
        shapes = like.tensors()
        sizes = [tensor.nbytes for tensor in shapes]
        parts = torch.frombuffer(bytearray(data), dtype=torch.uint8).split(sizes)
        pairs = zip(parts, shapes, strict=True)
        return like.with_tensors([part.view(t.dtype).view(t.shape) for part, t in pairs])

    def embeds(self, past: Snapshot, block: CachedBlock, like: Tensor) -> Tensor | None:
        """Return a block's input embeddings `[T, D]`.

        Raises:
            StoreError: they are damaged or cannot be read.
        """
        data = past.side(EMBEDS, block)
        if data is None:
            return None
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(like.dtype)
        return flat.view(block.tokens, -1).to(like)


def _to_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()
