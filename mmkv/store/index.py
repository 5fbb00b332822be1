"""Reading an index file piece by piece, however long it is and whatever it holds."""

from __future__ import annotations

import numpy as np

from mmkv.store.files import DataFile, NoFile
from mmkv.store.records import BLOCK, PAGE, SIDE, SYNC, record_type, sound

_PIECE = 1 << 20  # bytes that are read at once
_SEARCH = 1 << 26  # bytes without a sound record after which an index is taken to have ended


class IndexReader:
    """Gives the records at an offset that are there and sound.

    What it reads and keeps does not grow with what was appended to the file that is no record.

    Args:
        layers: of the model.
    """

    def __init__(self, file: DataFile | NoFile, layers: int) -> None:
        self.file = file
        self.type = record_type(layers)
        self._size = 0
        self._begin, self._piece = 0, b""

    def refresh(self) -> None:
        """See what was written since the last call."""
        self._size = self.file.size
        self._begin, self._piece = 0, b""

    def ends(self, at: int) -> bool:
        """Whether there is nothing from this offset on."""
        return at >= self._size

    def records(self, at: int, count: int) -> np.ndarray | None:
        """`count` records from an offset on, if they are there and sound."""
        size = count * self.type.itemsize
        if at + size > self._size:
            return None
        raw = self._bytes(at, size)
        return _sound(raw, self.type, count)

    def page(self, at: int) -> np.ndarray | None:
        """The records of the page that begins at an offset, if they are there and sound."""
        head = self.records(at, 1)
        count = 0 if head is None else count_of(head)
        return page_of(self.records(at, count)) if count else None

    def following(self, at: int, kinds: tuple[int, ...] = (PAGE, SYNC)) -> int | None:
        """Offset of the first sound record of these kinds, from an offset on; None: there is none.

        The search ends after 64 MiB.
        """
        size = self.type.itemsize
        stop = min(self._size, at + _SEARCH)
        step = _PIECE // size * size
        while at + size <= stop:
            raw = self.file.bytes(at, min(step, stop - at))
            count = len(raw) // size
            if not count:
                return None
            found = np.frombuffer(raw, self.type, count)
            for i in np.flatnonzero(np.isin(found["kind"], kinds)).tolist():
                if sound(found[i : i + 1]):
                    return at + i * size
            at += count * size
        return None

    def _bytes(self, at: int, length: int) -> bytes:
        inside = at - self._begin
        if inside < 0 or inside + length > len(self._piece):
            self._begin, inside = at, 0
            self._piece = self.file.bytes(at, max(length, min(_PIECE, self._size - at)))
        return self._piece[inside : inside + length]


def copied_page(raw: bytes, kind: np.dtype) -> np.ndarray | None:
    """The records of the page that `raw` begins with, if they are there and sound."""
    head = _sound(raw, kind, 1)
    count = 0 if head is None else count_of(head)
    return page_of(_sound(raw, kind, count)) if count else None


def count_of(head: np.ndarray) -> int:
    """How many records the page has that a record begins; 0 if it begins none."""
    if head["kind"][0] != PAGE or not head["count"][0]:
        return 0
    return 1 + int(head["count"][0]) + int(head["sides"][0])


def page_of(records: np.ndarray | None) -> np.ndarray | None:
    """The records, if those behind the first are what it says."""
    if records is None:
        return None
    count = int(records["count"][0])
    kinds = records["kind"]
    fits = bool((kinds[1 : 1 + count] == BLOCK).all() and (kinds[1 + count :] == SIDE).all())
    return records if fits else None


def _sound(raw: bytes, kind: np.dtype, count: int) -> np.ndarray | None:
    """The first records in `raw`, if they are there and sound."""
    if len(raw) < count * kind.itemsize:
        return None
    records = np.frombuffer(raw, kind, count)
    return records if all(sound(records[i : i + 1]) for i in range(count)) else None
