"""Reading a store, also one that another process is writing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmkv.store import meta as metafile
from mmkv.store.about import AboutReader
from mmkv.store.errors import DamageError, StoreError
from mmkv.store.files import HEADER, path_of
from mmkv.store.pages import StoredPage, restore
from mmkv.store.retention import Held
from mmkv.store.segment import Group, Segment

log = logging.getLogger("mmkv.store")


class Reader:
    """Gives a store's pages in order, each once.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = metafile.load(folder)
        self.held: list[Held] = []
        self.lost: list[tuple[Segment, Group]] = []
        self._about = AboutReader()

    @property
    def first(self) -> int:
        """The oldest block that the store holds."""
        return self.held[0].first if self.held else 0

    def pages(self, *, verify: bool = False) -> Iterator[StoredPage]:
        """Pages written since the last call, as far as they are whole.

        Args:
            verify: also read what no SYNC vouches for, and end before the first byte that is not
                as it was written.

        Raises:
            StoreError: a segment is missing. DamageError: one is damaged.
        """
        self.meta = metafile.load(self.folder)
        spans = self.meta["segments"]
        self._leave(int(spans["first"]))
        numbers = range(int(spans["first"]), int(spans["stop"]))
        for number in numbers:
            known = next((h for h in self.held if h.segment.number == number), None)
            if known is not None and known is not self.held[-1]:
                continue
            held = known or self._begin(number)
            if held is None:
                return
            groups = list(held.segment.groups())
            for group in groups:
                segment = held.segment
                if verify and group.at >= segment.synced and not segment.whole(group):
                    segment.position, segment.end = group.at, group.start
                    break
                if group.found:
                    self.lost.append((segment, group))
                stored = restore(segment, group, self._about)
                if stored.page.first != held.stop:
                    raise DamageError(
                        f"{segment.index.path}: block {held.stop} is missing; restore the file"
                    )
                held.stop, held.newest = stored.page.stop, stored.blocks[-1].seconds[1]
                if stored.page.first == held.first:
                    held.oldest = stored.blocks[0].seconds[0]
                yield stored
            held.nbytes = held.segment.end + held.segment.position

    def _begin(self, number: int) -> Held | None:
        try:
            segment = Segment(
                self.folder, number, int(self.meta["layers"]), bytes.fromhex(self.meta["store"])
            )
        except StoreError:
            first = int(metafile.load(self.folder)["segments"]["first"])
            if number < first:  # dropped while we looked
                return None
            raise
        expected = self.held[-1].stop if self.held else segment.first
        if segment.first != expected:
            raise DamageError(
                f"{path_of(self.folder, number - 1, 'data')} is cut short: blocks {expected} to "
                f"{segment.first - 1} are gone; restore it and its index from a copy"
            )
        self.held.append(Held(segment, segment.first, segment.first, 0.0, 0.0, 2 * HEADER))
        return self.held[-1]

    def _leave(self, first: int) -> None:
        self.held = [held for held in self.held if held.segment.number >= first]
