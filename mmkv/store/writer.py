"""Writing a store: pages appended to segments, data before index, made durable in batches."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.pages import Page
from mmkv.store import meta as metafile
from mmkv.store.errors import StoreError
from mmkv.store.files import HEADER, make_header, path_of
from mmkv.store.lock import Lock
from mmkv.store.pages import DiskPage, compose
from mmkv.store.records import SYNC, record_type, seal
from mmkv.store.retention import Held, Limits, expendable
from mmkv.store.segment import Segment
from mmkv.store.writing import is_at, open_new, open_to_write, sync_folder, write_all

_SYNC_BYTES = 1 << 26
_SYNC_SECONDS = 5.0


class Writer:
    """The one writer of a store.

    Args:
        meta: what meta.json says.
        lock: the store's, held.
        segments: those that exist already, oldest first.
        limits: when segments are begun and dropped.
    """

    def __init__(
        self,
        folder: Path,
        meta: dict[str, Any],
        lock: Lock,
        segments: Sequence[Held],
        limits: Limits,
    ) -> None:
        self.folder = folder
        self.meta = meta
        self._lock = lock
        self._noting = threading.Lock()
        self._limits = limits
        self._layers = int(meta["layers"])
        self._held = list(segments)
        self._segment: Segment | None = self._held[-1].segment if self._held else None
        self._data = self._index = -1
        self._unsynced, self._since = 0, time.monotonic()
        self._newest: float | None = None  # once closed
        if self._segment is not None:
            self._open(self._segment)

    def __del__(self) -> None:
        if hasattr(self, "_index"):  # never used by a thread of its own, which closes it
            self._close_files()

    @property
    def first(self) -> int:
        """The oldest block that the store holds, or will hold."""
        held = self._held  # once: `close` replaces it
        return held[0].first if held else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        return sum(held.nbytes for held in self._held)

    @property
    def newest(self) -> float | None:
        """Time of the newest frame that is stored; None before the first."""
        stored = [held for held in self._held if held.stop > held.first]
        return stored[-1].newest if stored else self._newest

    @property
    def settled(self) -> bool:
        """Whether everything that was written is on the disk."""
        return not self._unsynced

    def note(self, **facts: Any) -> None:
        """Keep facts in meta.json."""
        if all(self.meta.get(name) == fact for name, fact in facts.items()):
            return
        with self._noting:  # the stream's thread and the writing one both keep facts
            changed = {**self.meta, **facts}
            metafile.save(self.folder, changed)
            self.meta = changed

    def write(
        self,
        page: Page,
        blocks: Sequence[CachedBlock],
        summaries: bytes,
        keep: int,
    ) -> None:
        """Append a page; a failed attempt leaves nothing behind.

        Args:
            page: the page, its payload in memory.
            keep: blocks from this number on are not dropped, however large the store is.

        Raises:
            OSError: it could not be written.
        """
        assert page.payload is not None
        self._check_place()
        segment = self._room_for(page.nbytes, blocks[0])
        start, at = segment.end, segment.position
        sides: Sequence[Mapping[str, bytes]] = page.sides
        pieces, records = compose(page, page.payload, blocks, sides, summaries, start)
        try:
            stop = write_all(self._data, pieces, start)
            write_all(self._index, [records.tobytes()], at)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._index, at)
                os.ftruncate(self._data, start)
            raise
        group = segment.appended(records)
        assert group.stop == stop
        held = self._held[-1]
        if page.first == held.first:
            held.oldest = blocks[0].seconds[0]
        held.nbytes = segment.end + segment.position
        held.stop, held.newest = page.stop, blocks[-1].seconds[1]
        page.stored = DiskPage(segment.data, group, page.sizes)
        self._unsynced += stop - start
        late = time.monotonic() - self._since > _SYNC_SECONDS
        if self._unsynced >= _SYNC_BYTES or late:
            self.sync()
        self._drop(expendable(self._held, self._limits, keep))

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        self._since = time.monotonic()
        self._check_place()
        if not self._unsynced or self._segment is None:
            return
        os.fdatasync(self._data)
        os.fdatasync(self._index)
        mark = np.zeros(1, dtype=record_type(self._layers))
        mark["kind"], mark["block"] = SYNC, self._held[-1].stop
        write_all(self._index, [seal(mark)], self._segment.position)
        self._segment.marked()
        self._unsynced = 0

    def close(self) -> None:
        """Make everything durable, let go of the segments, and let other processes write.

        Raises:
            OSError: it could not be made durable.
        """
        try:
            self.sync()
            if self._held:  # whatever happens to the files, it is known how much was in them
                self.note(stored=self._held[-1].stop)
        finally:
            self._close_files()
            self._newest = self.newest
            self._held, self._segment = [], None
            self._lock.release()

    def _room_for(self, size: int, block: CachedBlock) -> Segment:
        segment, limits = self._segment, self._limits
        if segment is not None:
            held = self._held[-1]
            large = segment.end + size > limits.segment_bytes and segment.end > HEADER
            old = limits.segment_seconds is not None and (
                block.seconds[1] - held.oldest >= limits.segment_seconds
            )
            if not (large or old) or held.stop == held.first:
                return segment
            self.sync()
        return self._begin(block)

    def _begin(self, block: CachedBlock) -> Segment:
        number = int(self.meta["segments"]["stop"])
        store = bytes.fromhex(self.meta["store"])
        paths = [path_of(self.folder, number, kind) for kind in ("data", "index")]
        for path in paths:
            if path.is_file() and path.stat().st_size > HEADER:
                raise StoreError(
                    f"{path} is there already, though {metafile.NAME} does not know of it; if an "
                    f"old {metafile.NAME} was put back, put the newest one back, else move the "
                    "file away"
                )
        files: list[int] = []
        try:
            for path in paths:
                files.append(open_new(path))
                kind = path.suffix[1:]
                header = make_header(kind, self._layers, number, block.index, store)
                write_all(files[-1], [header], 0)
                os.fsync(files[-1])
            sync_folder(self.folder)
            segment = Segment(self.folder, number, self._layers, store)
            spans = {**self.meta["segments"], "stop": number + 1}
            self.note(segments=spans, stored=block.index)
        except OSError:
            for file in files:
                os.close(file)
            raise
        self._close_files()
        self._data, self._index = files
        self._segment = segment
        self._held.append(
            Held(segment, block.index, block.index, block.seconds[0], 0.0, 2 * HEADER)
        )
        return segment

    def _open(self, segment: Segment) -> None:
        """Continue a segment: cut off what is not whole."""
        try:
            self._index = open_to_write(segment.index.path)
            self._data = open_to_write(segment.data.path)
            os.ftruncate(self._index, segment.position)
            os.ftruncate(self._data, segment.end)
        except OSError as error:
            self._close_files()
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.folder} cannot be written: {error.strerror}") from error

    def _check_place(self) -> None:
        """Raise StoreError if what is written would not be found under the store's name."""
        if not self._lock.in_place:
            raise StoreError(
                f"the folder {self.folder} was removed, moved or replaced while it was written; "
                "put it back"
            )
        if self._segment is None:
            return
        pairs = ((self._segment.data, self._data), (self._segment.index, self._index))
        for file, number in pairs:
            if number >= 0 and not is_at(file.path, number):
                raise StoreError(
                    f"{file.path} was removed, moved or replaced while it was written; put it back"
                )

    def _drop(self, count: int) -> None:
        if not count:
            return
        spans = self.meta["segments"]
        gone = range(int(spans["first"]), self._held[count].segment.number)
        # before the files, so that what is missing is known to be missing on purpose
        self.note(segments={**spans, "first": gone.stop})
        del self._held[:count]
        for number in gone:  # including those that could not be read
            for kind in ("index", "data"):
                path_of(self.folder, number, kind).unlink(missing_ok=True)

    def _close_files(self) -> None:
        for file in (self._data, self._index):
            if file >= 0:
                os.close(file)
        self._data = self._index = -1
