"""Blocks in time order, found by their numbers; where a store lost some, numbers have a gap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from mmkv.archive.blocks import ArchivedBlock, index_of


class BlockList:
    """What is left of a stream's blocks.

    first: number of the oldest that was not forgotten, there or lost.
    """

    def __init__(self) -> None:
        self.first = 0
        self._held: list[ArchivedBlock] = []

    def __iter__(self) -> Iterator[ArchivedBlock]:
        return iter(self._held)

    @property
    def stop(self) -> int:
        """The next block's number."""
        return self._held[-1].index + 1 if self._held else self.first

    @property
    def last(self) -> ArchivedBlock | None:
        """The newest block."""
        return self._held[-1] if self._held else None

    @property
    def oldest(self) -> ArchivedBlock | None:
        """The oldest block not forgotten."""
        return self._held[0] if self._held else None

    def add(self, blocks: Iterable[ArchivedBlock]) -> None:
        """Add the newest."""
        self._held.extend(blocks)

    def replace(self, blocks: Sequence[ArchivedBlock]) -> None:
        """Put these, which have the newest blocks' numbers, in their places."""
        self._held[-len(blocks) :] = blocks

    def between(self, first: int, stop: int | None = None) -> list[ArchivedBlock]:
        """Blocks from number `first` on, up to `stop`, which is not among them."""
        return self._held[self._place(first) : None if stop is None else self._place(stop)]

    def at_token(self, token: int) -> int:
        """Number of the block that holds this token, or of the next one there is."""
        place = bisect_right(self._held, token, key=_end)
        return self._held[place].index if place < len(self._held) else self.stop

    def drop(self, first: int) -> list[ArchivedBlock]:
        """Forget blocks before number `first`, and return them."""
        place, stop = self._place(first), self.stop
        dropped = self._held[:place]
        del self._held[:place]
        self.first = self._held[0].index if self._held else stop
        return dropped

    def _place(self, index: int) -> int:
        """Where the block of this number stands, or would stand."""
        last = len(self._held)
        if last and self._held[-1].index - self._held[0].index == last - 1:  # nothing is lost
            return min(max(0, index - self._held[0].index), last)
        return bisect_left(self._held, index, key=index_of)


def _end(block: ArchivedBlock) -> int:
    return block.start + block.tokens
