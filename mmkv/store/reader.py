"""Reading a store, even while another process is writing it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmkv.archive.pages import StoredPage
from mmkv.store import meta as metafile
from mmkv.store.about import AboutReader
from mmkv.store.errors import DamageError, ForeignFileError, StoreError
from mmkv.store.files import HEADER, SEGMENT_NAME
from mmkv.store.losses import Ledger, Loss
from mmkv.store.pages import restore
from mmkv.store.retention import Held
from mmkv.store.segment import Group, Segment

_FEW = 64  # segments


class Reader:
    """Gives a store's pages in order, each once.

    Attributes:
        meta: what meta.json says.
        held: the segments read so far, oldest first.
        lost: records found in data files that their index had lost.
        notes: what is wrong with files that hold no frames.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        notes: list[str] = []
        self.meta: dict[str, Any] = metafile.load(folder, notes)
        if not notes and self.meta["version"] not in metafile.UNCHECKED:
            notes += filter(None, [metafile.copy_damage(folder)])
        self.notes = [Loss.none(note) for note in notes]
        self.held: list[Held] = []
        self.lost: list[tuple[Segment, Group]] = []
        self._about = AboutReader()
        self._ledger = Ledger()
        self._unreadable: set[int] = set()  # segments

    @property
    def first(self) -> int:
        """The oldest block that the store holds."""
        return self.held[0].first if self.held else 0

    def release(self) -> None:
        """Let go of the segments; pages given before keep what they need."""
        self.held, self.lost = [], []

    @property
    def losses(self) -> list[Loss]:
        """What is missing among the pages given so far, and behind them."""
        tail = self._ledger.tail
        return [*self.notes, *self._ledger.losses, *([] if tail is None else [tail])]

    @property
    def tail(self) -> Loss | None:
        """What is missing after the last page."""
        return self._ledger.tail

    def pages(self, *, verify: bool = False) -> Iterator[StoredPage]:
        """Pages written since the last call that can be read; `losses` lists what is missing.

        Args:
            verify: also check pages at the end that no SYNC vouches for, and stop before those that
                are not as they were written.

        Raises:
            StoreError: the store is gone, or another one has taken its place.
        """
        self.meta = self._load()
        first, stop = (int(self.meta["segments"][name]) for name in ("first", "stop"))
        self.held = [held for held in self.held if held.segment.number >= first]
        newest = self.held[-1].segment.number if self.held else first - 1
        for number in self._numbers(max(first, newest), stop):
            if number in self._unreadable:
                continue
            held = self.held[-1] if number == newest and self.held else self._begin(number)
            if held is None:
                continue
            yield from self._pages(held, verify)
        stored = int(self.meta.get("stored", 0))
        if stop > first and stored > self._ledger.next and not self._ledger.damaged:
            path = self.held[-1].segment.data.path if self.held else self.folder
            self._ledger.damage(f"{path} is cut short")

    def _numbers(self, first: int, stop: int) -> Iterable[int]:
        """Segments from `first` to `stop` - 1; of many in a row that are missing, the first."""
        if stop - first < _FEW:
            return range(first, stop)
        names = map(SEGMENT_NAME.fullmatch, os.listdir(self.folder))
        there = {int(name[1]) for name in names if name is not None and name[2] == "data"}
        return [n for n in range(first, stop) if n == first or n in there or n - 1 in there]

    def _load(self) -> dict[str, Any]:
        """What meta.json says now, if it is that of the same store."""
        try:
            meta = metafile.load(self.folder)
        except DamageError:
            raise
        except StoreError as error:
            if self.folder.joinpath(metafile.NAME).exists():
                raise
            raise StoreError(
                f"the store {self.folder} was removed or moved while it was open; put it back, or "
                "open the one that you mean"
            ) from error
        if meta["store"] != self.meta["store"]:
            raise StoreError(
                f"{self.folder} now holds another store than the one that was opened; open it "
                "again to ask about the new one"
            )
        return meta

    def _pages(self, held: Held, verify: bool) -> Iterator[StoredPage]:
        segment = held.segment
        groups = list(segment.groups())
        while verify and groups and groups[-1].at >= segment.synced:
            if segment.whole(groups[-1]):
                break
            torn = groups.pop()
            segment.position, segment.end = torn.at, torn.start
        for group in groups:
            if group.first < held.stop:
                self._ledger.damage(f"{segment.index.path} lists frames out of order")
                continue
            if group.before is not None:
                self._ledger.damage(group.before)
            if group.found:
                self.lost.append((segment, group))
            held.stop = group.first + group.blocks
            try:
                stored = restore(segment, group, self._about)
            except DamageError as error:
                self._ledger.damage(str(error))
                continue
            self._ledger.read(stored.blocks, f"{segment.index.path} does not list them")
            held.newest = stored.blocks[-1].seconds[1]
            if stored.page.first == held.first:
                held.oldest = stored.blocks[0].seconds[0]
            yield stored
        if segment.damage is not None:
            self._ledger.damage(segment.damage)
        held.nbytes = segment.end + segment.position

    def _begin(self, number: int) -> Held | None:
        last = self.held[-1] if self.held else None
        try:
            segment = Segment(
                self.folder, number, int(self.meta["layers"]), bytes.fromhex(self.meta["store"])
            )
            if last is not None and segment.first < last.stop:
                raise ForeignFileError(
                    f"{segment.data.path} begins with frames that {last.segment.data.path} holds"
                )
        except (StoreError, OSError) as error:
            first = int(self._load()["segments"]["first"])
            if number >= first:  # or it was dropped while we looked
                self._unreadable.add(number)
                self._ledger.damage(str(error))
                if not self.held and number > 0:
                    self._ledger.skip_to(None)
            return None
        if last is None and not self._unreadable:
            self._ledger.skip_to(segment.first)
        if last is not None and last.segment.number == number - 1 and segment.first > last.stop:
            self._ledger.damage(f"{last.segment.data.path} is cut short")
        self.held.append(Held(segment, segment.first, segment.first, 0.0, 0.0, 2 * HEADER))
        return self.held[-1]
