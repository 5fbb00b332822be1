"""The stream's past: an open page in full precision, packed pages in memory, and on disk.

One writer, the stream; a question works on a snapshot, which keeps what it refers to alive.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.pages import pack, stripped
from mmkv.archive.reads import PageMemory, ReadCounts
from mmkv.archive.sink import PageSink, PageSource
from mmkv.archive.slabs import Slabs
from mmkv.archive.snapshot import Packed, Snapshot
from mmkv.archive.summaries import SummaryIndex, first_centre, rounded
from mmkv.archive.summary_format import centre_of, facts, from_bytes, to_bytes
from mmkv.archive.thinning import Thinning
from mmkv.archive.timeline import BlockList, PageList, PageSize
from mmkv.codecs import Codec
from mmkv.models.layers import Shape

log = logging.getLogger("mmkv.archive")


class Archive:
    """Blocks in time order.

    Beyond `limit` bytes the oldest are forgotten or, with a store, the least recently used are on
    disk alone.

    Args:
        codec: how pages are packed.
        shape, dtype: of the model.
        limit: bytes of keys and values kept in host memory, None for all.
        page: when pages are closed.
        index_bytes: bytes of summaries on the devices, None for all.
        on_disk: whether pages are in a store, which `extend` or `write_to` then names.
        devices: of the layers, where pages are packed; none: in host memory.
        thinning: what becomes of a page's visual tokens before it is packed; None: all are kept.
        slab_limit: bytes that pages may take, where a store's limit is below `limit`.
    """

    def __init__(
        self,
        codec: Codec,
        shape: Shape,
        dtype: torch.dtype,
        limit: int | None = None,
        page: PageSize | None = None,
        index_bytes: int | None = None,
        on_disk: bool = False,
        devices: Sequence[torch.device] = (),
        thinning: Thinning | None = None,
        slab_limit: int | None = None,
    ) -> None:
        self.codec = codec
        self._thinning = thinning
        self.sink: PageSink | None = None
        self.window_tokens = 0  # how many of the newest tokens a store has to keep
        self.limit = limit
        self._page_size = page or PageSize()
        self._devices = devices
        self._payloads = Slabs(torch.uint8, pinned=False, limit=slab_limit or limit)
        self._blocks = BlockList()
        self._pages = PageList(2 * shape.layers * shape.kv_heads * shape.head_dim)
        self._summaries = SummaryIndex(shape.layers, index_bytes)
        self._memory = PageMemory(limit if on_disk else None)
        self._on_disk = on_disk
        self._shape = shape
        self._handed = 0  # the first block that was not handed over to be written
        self._to_write: dict[int, Tensor] = {}  # summaries [L, m, H_kv, D] of blocks from there on
        self._host_centre: list[Tensor] = []  # as `SummaryIndex.centre`, where that is elsewhere
        self._centre_noted = False  # whether the store has the summaries' centre
        self._packed = Packed(codec, shape, dtype, self._memory)
        self._bytes = 0  # of packed blocks not forgotten
        self._busy = threading.Lock()  # while blocks are added

    def __len__(self) -> int:
        """Blocks so far, including those forgotten or lost: the next one's number."""
        return self._blocks.stop

    @property
    def first(self) -> int:
        """Number of the oldest block not forgotten."""
        return self._blocks.first

    @property
    def last(self) -> CachedBlock | None:
        """The newest block."""
        return self._blocks.last

    @property
    def oldest(self) -> CachedBlock | None:
        """The oldest block not forgotten."""
        return self._blocks.oldest

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values in host memory, packed or not."""
        packed = self._memory.nbytes if self._on_disk else self._bytes
        return packed + sum(block.nbytes for block in self._open())

    @property
    def bits_per_element(self) -> float | None:
        """Bits per element of packed keys and values, over all pages so far.

        Everything that decoding needs is included. None before the first page.
        """
        return self._pages.bits_per_element

    @property
    def kept(self) -> float | None:
        """Share of all pages' tokens so far that was not evicted; None before the first page."""
        return self._pages.kept

    @property
    def index_bytes(self) -> int:
        """Bytes of the summaries."""
        return self._summaries.nbytes

    @property
    def reads(self) -> ReadCounts:
        """Where questions found what they needed."""
        return self._memory.counts

    def append(
        self,
        blocks: Sequence[CachedBlock],
        summaries: Sequence[Tensor],
        on_host: Sequence[Tensor] | None = None,
    ) -> None:
        """Add blocks, with their keys and values.

        Args:
            summaries: per layer `[len(blocks), H_kv, D]` or `[len(blocks), m, H_kv, D]`.
            on_host: the same in host memory, if `summaries` are not there; stored summaries are
                taken from these.
        """
        rows = [layer if layer.ndim == 4 else layer[:, None] for layer in summaries]
        with self._busy:
            kept = self._summaries.append(len(self), rows)
            if self.sink is not None and blocks:
                self._keep_to_write(self.sink, blocks, kept, on_host)
                self.sink.saw(blocks[-1].seconds[1])
            for block in blocks:
                self._blocks.add([block])
                if self._page_size.full(self._open(), self._thinning):
                    self._close_page()
            self._hand_over()
            self._forget()

    def extend(self, store: PageSource, devices: Sequence[torch.device]) -> None:
        """Add the new pages of a store, and forget what has left it.

        Blocks that the store lost are missing, which leaves a gap in the numbers.

        Args:
            store: where the pages come from.
            devices: of the layers; summaries are moved there.

        Raises:
            StoreError: the store cannot be read.
        """
        for stored in store.pages():
            page = stored.page
            if not self._summaries.centre:
                centre = centre_of(store.meta["summaries"], self._shape)
                self._host_centre = centre
                pairs = zip(centre, devices, strict=True)
                self._summaries.centre = [layer.to(device) for layer, device in pairs]
            if self._blocks.last is None:
                self._blocks.first = page.first
            rows = from_bytes(stored.summaries, len(stored.blocks), self._shape)
            moved = [row.to(device) for row, device in zip(rows, devices, strict=True)]
            self._summaries.extend(page.first, moved)
            self._pages.add(page)
            self._blocks.add(stored.blocks)
            self._handed = page.stop
        self.leave(store.first)

    def write_to(self, sink: PageSink) -> None:
        """Hand pages over from now on; to be called before the first block is appended."""
        self.sink = sink

    @property
    def trim(self) -> Callable[[], None]:
        """Drops pages from host memory that are on disk, where there are too many.

        It holds no reference to the archive, so keeping it does not keep the archive alive.
        """
        return self._memory.trim

    def leave(self, first: int) -> None:
        """Forget blocks before number `first`."""
        if first <= self.first:
            return
        for block in self._blocks.drop(first):
            page = self._pages.of(block.index)
            if page is not None and not self._on_disk:
                self._bytes -= page.bytes_of(block.index)
        self._memory.forget(self._pages.drop(self.first))
        self._summaries.forget(self.first)

    def make_room(self) -> None:
        """Wait while too much waits to be written.

        Raises:
            StoreError: the store cannot be written.
        """
        if self.sink is not None:
            self.sink.make_room()

    def flush(self) -> None:
        """Pack what the open page holds; with a store, return when everything is on the disk.

        Raises:
            StoreError: the store cannot be written.
        """
        if self._open():
            self._close_page()
        if self.sink is not None:
            self._hand_over()
            self.sink.flush()
            self.leave(self.sink.first)

    def hand_over_unless_busy(self) -> None:
        """Pack the open page and hand it over, unless a thread is in the middle of adding blocks.

        For the end of a process, where such a thread will not be done, and nothing may wait.
        """
        if not self._busy.acquire(blocking=False):
            return
        try:
            if self._open():
                self._close_page()
            self._hand_over()
        finally:
            self._busy.release()

    def close(self) -> None:
        """Close the store, and let go of everything but the newest block's place in the stream.

        What was not flushed may be lost. Snapshots keep what they refer to. A call that was
        interrupted may be repeated.
        """
        self._memory.close()
        if self.sink is not None:
            self.sink.close()
        # in new lists: other threads may be reading the old ones
        self._blocks, self._pages = self._blocks.ended(), PageList(self._pages.token)
        self._summaries = SummaryIndex(0)
        self._payloads.clear()
        self._to_write, self._bytes = {}, 0

    def snapshot(self) -> Snapshot:
        """The blocks and summaries as they are now."""
        return Snapshot(
            list(self._blocks), self._pages.copy(), self._summaries.view(), self._packed
        )

    def _open(self) -> list[CachedBlock]:
        """Blocks of the open page."""
        return self._blocks.between(max(self._pages.stop, self.first))

    def _close_page(self) -> None:
        blocks = self._open()
        page = pack(blocks, self.codec, self._payloads, self._devices, self._thinning)
        # from here on the blocks belong to the page, even if an interrupt comes in between
        self._pages.add(page)
        self._blocks.replace([stripped(block) for block in blocks])
        self._bytes += sum(page.bytes_of(block.index) for block in blocks)

    def _keep_to_write(
        self,
        sink: PageSink,
        blocks: Sequence[CachedBlock],
        kept: Sequence[Tensor],
        on_host: Sequence[Tensor] | None,
    ) -> None:
        """Hold blocks' summaries in host memory until their page is handed over.

        Args:
            kept: as the index has them. on_host: as `append` got them.
        """
        if on_host is not None:  # rounded here too, so that nothing is fetched from a device
            rows = [layer.view(kept[0].shape) for layer in on_host]
            self._host_centre = self._host_centre or first_centre(rows)
            kept = [rounded(*pair) for pair in zip(rows, self._host_centre, strict=True)]
        stored = torch.stack([layer.cpu() for layer in kept], dim=1)  # [n, L, m, H_kv, D]
        self._to_write.update(zip((b.index for b in blocks), stored, strict=True))
        if not self._centre_noted:
            sink.note(summaries=facts(self._host_centre or self._summaries.centre))
            self._centre_noted = True

    def _hand_over(self) -> None:
        """Give the sink the pages that it does not have yet."""
        if self.sink is None:
            return
        for page in self._pages.since(self._handed):
            blocks = self._blocks.between(page.first, page.stop)
            summaries = torch.stack([self._to_write[block.index] for block in blocks])
            self._memory.admit(page)
            self.sink.put(page, blocks, to_bytes(summaries), self._needed())
            self._handed = page.stop
            for block in blocks:  # only now: an interrupt may come in between
                self._to_write.pop(block.index, None)
        self.leave(self.sink.first)

    def _needed(self) -> int:
        """The first block that the window still shows."""
        last = self._blocks.last
        assert last is not None
        return self._blocks.at_token(last.start + last.tokens - self.window_tokens)

    def _forget(self) -> None:
        if self._on_disk or self.limit is None or self.nbytes <= self.limit:
            return
        if self.first == 0:
            log.warning(
                "the archive reached its limit of %d bytes; from now on the oldest frames are "
                "forgotten (raise max_ram to keep more, or keep the stream on disk with store=)",
                self.limit,
            )
        held, first = self.nbytes, self.first
        for block in self._blocks:
            if held <= self.limit or block is self.last:
                break
            page = self._pages.of(block.index)
            held -= block.nbytes if page is None else page.bytes_of(block.index)
            first = block.index + 1
        self.leave(first)
