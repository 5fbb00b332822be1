"""A stream's store: created, continued, or followed while another process writes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmkv.archive.pages import StoredPage
from mmkv.store import meta as metafile
from mmkv.store import waiting
from mmkv.store.errors import StoreError
from mmkv.store.files import SEGMENT_NAME
from mmkv.store.lock import NAME as LOCK
from mmkv.store.lock import Lock
from mmkv.store.losses import Loss
from mmkv.store.mending import mend
from mmkv.store.pages import DiskPage
from mmkv.store.reader import Reader
from mmkv.store.records import VERSION
from mmkv.store.retention import Limits
from mmkv.store.writer import Writer


class Store:
    """A store that a stream uses; made by `create`, `resume` or `follow`.

    Attributes:
        meta: what meta.json says.
        writer: None where the store is only read.
    """

    def __init__(self, folder: Path, reader: Reader | None, writer: Writer | None) -> None:
        self.folder = folder
        self.writer = writer
        self._reader = reader
        self._lock: Lock | None = None
        self._losses: list[Loss] = []

    @classmethod
    def create(cls, path: str | os.PathLike[str], facts: dict[str, Any], limits: Limits) -> Store:
        """A new store, open for writing.

        Args:
            path: a folder that does not exist, or is empty.
            facts: what meta.json is to say about the stream and its model.

        Raises:
            StoreError: something is there already, or it cannot be written.
        """
        folder = Path(path).expanduser().absolute()
        metafile.prepare(folder)
        lock = _lock(folder)
        try:
            return cls(
                folder, None, Writer(folder, metafile.create(folder, facts), lock, [], limits)
            )
        except StoreError:
            lock.release()
            raise
        except OSError as error:
            lock.release()
            raise StoreError(f"no store can be made at {folder}: {error.strerror}") from error

    @classmethod
    def follow(cls, path: str | os.PathLike[str]) -> Store:
        """An existing store, open for reading.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        folder = Path(path).expanduser().absolute()
        return cls(folder, Reader(folder), None)

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> Store:
        """An existing store, to be continued; read its pages, then call `start_writing`.

        Raises:
            StoreError: there is none, another process is writing it, or it cannot be written.
        """
        folder = Path(path).expanduser().absolute()
        metafile.load(folder)
        lock = _lock(folder)
        try:
            store = cls(folder, Reader(folder), None)
        except BaseException:
            lock.release()
            raise
        store._lock = lock
        return store

    @property
    def meta(self) -> dict[str, Any]:
        """What meta.json says."""
        if self.writer is not None:
            return self.writer.meta
        assert self._reader is not None
        return self._reader.meta

    @property
    def first(self) -> int:
        """The oldest block that the store holds."""
        if self.writer is not None:
            return self.writer.first
        assert self._reader is not None
        return self._reader.first

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        if self.writer is not None:
            return self.writer.nbytes
        assert self._reader is not None
        return sum(held.nbytes for held in self._reader.held)

    def pages(self) -> Iterator[StoredPage]:
        """Pages not given before, oldest first.

        Raises:
            StoreError: they cannot be read.
        """
        if self._reader is not None:
            yield from self._reader.pages(verify=self._lock is not None)

    @property
    def losses(self) -> list[Loss]:
        """What is missing among the pages given so far, and behind them."""
        return self._losses if self._reader is None else self._reader.losses

    def damage_of(self, stored: StoredPage) -> list[str]:
        """Describe where a page is not as it was written; reads all of it."""
        page = stored.page
        found: list[str] = []
        assert page.stored is not None
        for row in range(len(page.sizes)):
            for layer in range(page.sizes.shape[1]):
                try:
                    page.stored.read(row, layer)
                except StoreError as error:
                    block = stored.blocks[max(0, row - 1)]
                    found.append(f"{block.seconds[0]:.2f} s, layer {layer}: {error}")
        if isinstance(page.stored, DiskPage):
            since = f"beside frames from {stored.blocks[0].seconds[0]:.2f} s on"
            found += [f"{since}: {damage}" for damage in page.stored.damaged_sides()]
        return found

    def start_writing(self, limits: Limits) -> Writer:
        """Begin writing where the pages end; anything incomplete after them is cut off.

        Raises:
            StoreError: the store cannot be written, or its newest frames are lost: new ones would
                not know their places in the stream, nor what came before them.
        """
        reader, lock = self._reader, self._lock
        assert reader is not None
        assert lock is not None
        if reader.tail is not None:
            raise StoreError(
                f"the store {self.folder} cannot be continued: its newest frames are lost: "
                f"{reader.tail}; repair it, or open it with mode='r'"
            )
        for held in reader.held:
            mend(held.segment, reader.lost, reader.meta)
        if reader.notes or reader.meta["version"] != VERSION:
            # restores a damaged copy; earlier versions may not be able to read what follows
            metafile.save(self.folder, {**reader.meta, "version": VERSION})
        meta = metafile.load(self.folder)
        self.writer = Writer(self.folder, meta, lock, reader.held, limits)
        self._losses = reader.losses
        self._reader = self._lock = None
        return self.writer

    def release(self) -> None:
        """Let go of what was read; let other processes write, where writing never began."""
        if self._reader is not None:
            self._reader.release()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def keep_waiting(self, after: int, frames: list[tuple[float, np.ndarray]]) -> None:
        """Keep frames that do not make up a block yet.

        Args:
            after: number of blocks before them.
            frames: times in seconds, and frames uint8 `[H, W, 3]`.

        Raises:
            StoreError: they cannot be written.
        """
        try:
            waiting.save(self.folder, after, frames)
        except OSError as error:
            raise StoreError(f"the store {self.folder} cannot be written: {error}") from error

    def waiting(self, after: int) -> list[tuple[float, np.ndarray]]:
        """Frames that were kept after this many blocks."""
        return waiting.load(self.folder, after)


def remove(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Remove a store; files in its folder that are not part of it stay.

    Returns:
        bytes that were freed, and how many files are left.

    Raises:
        StoreError: there is no store, or a process is writing it.
    """
    folder = Path(path).expanduser().absolute()
    if not metafile.is_store(folder):
        raise StoreError(f"{folder} is not an mmkv store, so nothing was removed")
    lock = _lock(folder)
    freed = 0
    try:
        # first, so that a half-removed store is none
        names = [metafile.COPY, metafile.NAME, waiting.NAME]
        names += sorted(filter(SEGMENT_NAME.fullmatch, os.listdir(folder)))
        names += [f"{name}.new" for name in names[:3]]
        for file in [folder / name for name in (*names, LOCK)]:
            if file.is_symlink() or file.exists():
                freed += file.lstat().st_size
                file.unlink()
        left = len(os.listdir(folder))
        if not left:
            _remove_folder(folder)
    except OSError as error:
        raise StoreError(f"{folder} could not be removed: {error.strerror}") from error
    finally:
        lock.release()
    return freed, left


def _remove_folder(folder: Path) -> None:
    """Remove an empty folder; where `folder` is a link to it, only the link."""
    if folder.is_symlink():
        folder.unlink()
    else:
        folder.rmdir()


def _lock(folder: Path) -> Lock:
    try:
        return Lock(folder)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"the store {folder} cannot be written: {error.strerror}; open it with mode='r'"
        ) from error
