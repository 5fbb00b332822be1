"""Blocks and pages of the past in time order, and when a page is closed.

Both are found by the blocks' numbers; where a store lost some blocks, numbers have a gap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mmkv.archive.blocks import CachedBlock, index_of
from mmkv.archive.pages import Page, stripped
from mmkv.archive.thinning import Thinning
from mmkv.codecs.sizes import page_tokens


class BlockList:
    """What is left of a stream's blocks.

    Attributes:
        first: number of the oldest that was not forgotten, even if it is lost.
    """

    def __init__(self) -> None:
        self.first = 0
        self._held: list[CachedBlock] = []

    def __iter__(self) -> Iterator[CachedBlock]:
        return iter(self._held)

    @property
    def stop(self) -> int:
        """The next block's number."""
        return self._held[-1].index + 1 if self._held else self.first

    @property
    def last(self) -> CachedBlock | None:
        """The newest block."""
        return self._held[-1] if self._held else None

    @property
    def oldest(self) -> CachedBlock | None:
        """The oldest block not forgotten."""
        return self._held[0] if self._held else None

    def add(self, blocks: Iterable[CachedBlock]) -> None:
        """Add the newest."""
        self._held.extend(blocks)

    def replace(self, blocks: Sequence[CachedBlock]) -> None:
        """Put these, which have the newest blocks' numbers, in their places."""
        self._held[-len(blocks) :] = blocks

    def between(self, first: int, stop: int | None = None) -> list[CachedBlock]:
        """Blocks from number `first` on, up to but not including `stop`."""
        return self._held[self._place(first) : None if stop is None else self._place(stop)]

    def at_token(self, token: int) -> int:
        """Number of the block that holds this token, or of the next one there is."""
        place = bisect_right(self._held, token, key=_end)
        return self._held[place].index if place < len(self._held) else self.stop

    def drop(self, first: int) -> list[CachedBlock]:
        """Forget blocks before number `first`, and return them."""
        place, stop = self._place(first), self.stop
        dropped = self._held[:place]
        del self._held[:place]
        self.first = self._held[0].index if self._held else stop
        return dropped

    def ended(self) -> BlockList:
        """Only the newest block, without its keys and values."""
        left = BlockList()
        left.add([stripped(block) for block in self._held[-1:]])
        left.first = left.stop - len(left._held)
        return left

    def _place(self, index: int) -> int:
        """Where the block of this number stands, or would stand."""
        last = len(self._held)
        if last and self._held[-1].index - self._held[0].index == last - 1:  # nothing is lost
            return min(max(0, index - self._held[0].index), last)
        return bisect_left(self._held, index, key=index_of)


def _end(block: CachedBlock) -> int:
    return block.start + block.tokens


@dataclass(frozen=True, slots=True)
class PageSize:
    """When a page is closed.

    Attributes:
        tokens: at this many tokens that it keeps; None: 512 if a block has 128 or more, else 64.
        seconds: after this many seconds of the stream.
    """

    tokens: int | None = None
    seconds: float = 60.0

    def full(self, blocks: Sequence[CachedBlock], thinning: Thinning | None = None) -> bool:
        """Whether these blocks make a page."""
        enough = self.tokens or page_tokens(blocks[0].tokens)
        held = sum(block.tokens for block in blocks)
        if thinning is not None and held >= enough:
            held = thinning.tokens_left(blocks)
        return held >= enough or blocks[-1].seconds[1] - blocks[0].seconds[0] >= self.seconds


class PageList:
    """Packed pages in time order.

    Attributes:
        token: elements of a token's keys and values, all layers.
    """

    def __init__(self, token: int) -> None:
        self.token = token
        self._pages: list[Page] = []
        self._bytes = 0  # of all pages so far, including those that left
        self._tokens = [0, 0]  # packed, and as they were encoded

    @property
    def stop(self) -> int:
        """Number of the block after the last page; 0 before the first."""
        return self._pages[-1].stop if self._pages else 0

    @property
    def bits_per_element(self) -> float | None:
        """Bits per element over all pages so far, all that decoding needs included; or None."""
        elements = self._tokens[0] * self.token
        return 8 * self._bytes / elements if elements else None

    @property
    def kept(self) -> float | None:
        """Share of all pages' tokens so far that was not evicted; None before the first page."""
        left, whole = self._tokens
        return left / whole if whole else None

    def add(self, page: Page) -> None:
        """Add the next page."""
        self._pages.append(page)
        self._bytes += page.nbytes
        left, whole = sum(page.lengths), sum(page.whole or page.lengths)
        self._tokens = [self._tokens[0] + left, self._tokens[1] + whole]

    def since(self, block: int) -> list[Page]:
        """Pages that begin at this block or later."""
        place = len(self._pages)
        while place and self._pages[place - 1].first >= block:
            place -= 1
        return self._pages[place:]

    def drop(self, first: int) -> list[Page]:
        """Drop pages that hold nothing from block `first` on, and return them."""
        gone = 0
        while gone < len(self._pages) and self._pages[gone].stop <= first:
            gone += 1
        dropped = self._pages[:gone]
        del self._pages[:gone]
        return dropped

    def copy(self) -> list[Page]:
        """The pages as they are now."""
        return list(self._pages)

    def of(self, block: int) -> Page | None:
        """The page that holds a block; None if none does."""
        return page_of(self._pages, block)


def page_of(pages: Sequence[Page], block: int) -> Page | None:
    """The one of these pages, in time order, that holds a block; None if none does."""
    place = bisect_right(pages, block, key=_first) - 1
    page = pages[place] if place >= 0 else None
    return page if page is not None and block < page.stop else None


def _first(page: Page) -> int:
    return page.first
