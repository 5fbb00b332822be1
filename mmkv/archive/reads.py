"""Packed pages between disk and host memory: which stay, which are read, and which are prefetched.

Slabs of pages that are on disk leave host memory least recently used first. A slice that was read
back or prefetched stays for a while in a small cache of its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmkv.archive.pages import Page, Stored

_CACHE_SHARE = 8  # of max_ram, for slices read back
_CACHE_BYTES = 1 << 28  # where max_ram has no limit


@dataclass(slots=True)
class ReadCounts:
    """How many slices questions needed.

    Attributes:
        memory: those of pages in memory.
        ahead: those prefetched, or kept since an earlier read.
        disk: those read when they were needed.
    """

    memory: int = 0
    ahead: int = 0
    disk: int = 0


class _Cached(NamedTuple):
    future: Future[np.ndarray]
    nbytes: int


class PageMemory:
    """Which pages are in host memory.

    Args:
        limit: bytes of pages and slices kept in host memory, None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._cache_limit = _CACHE_BYTES if limit is None else limit // _CACHE_SHARE
        self._room = None if limit is None else limit - self._cache_limit
        self._slabs: OrderedDict[int, list[Page]] = OrderedDict()
        self._slices: OrderedDict[tuple[int, int, bool], _Cached] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._cached = 0
        self._held = 0
        self.counts = ReadCounts()

    @property
    def nbytes(self) -> int:
        """Bytes of pages and slices in host memory."""
        return self._held + self._cached

    def admit(self, page: Page) -> None:
        """Count a page whose payload is in memory."""
        with self._lock:
            held = self._slabs.setdefault(page.slab, [])
            self._slabs.move_to_end(page.slab)
            if all(page is not other for other in held[-1:]):
                held.append(page)
                self._held += page.nbytes

    def trim(self) -> None:
        """Release slabs whose pages are all on disk, least recently used first."""
        with self._lock:
            for slab, pages in list(self._slabs.items())[:-1]:
                if self._room is None or self._held <= self._room:
                    return
                if all(page.stored is not None for page in pages):
                    del self._slabs[slab]
                    for page in pages:
                        self._held -= page.nbytes
                        page.payload, page.sides = None, ()

    def forget(self, pages: Sequence[Page]) -> None:
        """Forget pages that left the archive; their memory is freed with their last user."""
        gone = set(map(id, pages))
        with self._lock:
            for slab in {page.slab for page in pages if page.payload is not None}:
                held = self._slabs.pop(slab, [])
                kept = [page for page in held if id(page) not in gone]
                self._held -= sum(page.nbytes for page in held if id(page) in gone)
                if kept:
                    self._slabs[slab] = kept
                    self._slabs.move_to_end(slab, last=False)

    def slices(self, page: Page, layer: int, blocks: Sequence[int]) -> list[np.ndarray]:
        """The slice that the page's blocks share and each block's, from memory or from disk."""
        rows = [0, *(block - page.first + 1 for block in blocks)]
        payload = page.payload  # read once: another thread may release it
        if payload is None:
            waiting = [self._ask(page, row, layer, ahead=False) for row in rows]
            pairs = zip(rows, waiting, strict=True)
            return [self._result(page, row, layer, future) for row, future in pairs]
        with self._lock:
            if page.slab in self._slabs:
                self._slabs.move_to_end(page.slab)
            self.counts.memory += len(blocks)
        return [payload[slice(*page.slice(row, layer))] for row in rows]

    def prefetch(self, page: Page, layer: int, blocks: Sequence[int]) -> None:
        """Begin reading slices that will be needed; returns at once."""
        if page.payload is None:
            for row in [0, *(block - page.first + 1 for block in blocks)]:
                self._ask(page, row, layer, ahead=True)

    def close(self) -> None:
        """Stop reading ahead, and let go of pages; answers under way still read theirs."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            self._slabs.clear()
            self._slices.clear()
            self._held = self._cached = 0
        if pool is not None:
            pool.shutdown(wait=False)

    def _result(self, page: Page, row: int, layer: int, future: Future[np.ndarray]) -> np.ndarray:
        while True:
            try:
                return future.result()
            except CancelledError:  # an interrupt in another thread, which was reading it
                future = self._ask(page, row, layer, ahead=False)

    def _ask(self, page: Page, row: int, layer: int, *, ahead: bool) -> Future[np.ndarray]:
        future: Future[np.ndarray] = Future()
        try:
            return self._begin(page, row, layer, future, ahead=ahead)
        except BaseException:  # an interrupt: nobody may wait for what nobody reads
            future.cancel()
            raise

    def _begin(
        self, page: Page, row: int, layer: int, future: Future[np.ndarray], *, ahead: bool
    ) -> Future[np.ndarray]:
        size, stored = int(page.sizes[row, layer]), page.stored
        if not size:  # nothing to read, as where a codec's blocks share nothing
            future.set_result(np.empty(0, dtype=np.uint8))
            return future
        assert stored is not None
        key = (page.first + max(row - 1, 0), layer, row == 0)
        if self._closed:  # for an answer under way; nothing is kept any more
            _read(stored, row, layer, future)
            return future
        with self._lock:
            known = self._slices.pop(key, None)
            if known is not None and not _failed(known.future):
                self._slices[key] = known
                self.counts.ahead += not ahead
                return known.future
            self._cached -= 0 if known is None else known.nbytes
            self._slices[key] = _Cached(future, size)
            self._cached += size
            while self._cached > self._cache_limit and len(self._slices) > 1:
                self._cached -= self._slices.popitem(last=False)[1].nbytes
            self.counts.disk += not ahead
            if ahead and not self._closed:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(2, thread_name_prefix="mmkv-prefetch")
                self._pool.submit(_read, stored, row, layer, future)
                return future
        _read(stored, row, layer, future)
        return future


def _failed(future: Future[np.ndarray]) -> bool:
    return future.cancelled() or (future.done() and future.exception() is not None)


def _read(stored: Stored, row: int, layer: int, into: Future[np.ndarray]) -> None:
    try:
        found = stored.read(row, layer)
    except Exception as error:
        into.set_exception(error)
    else:
        into.set_result(found)
