"""Reading a segment: a data file, and the index of what it holds.

In the data file each page is followed by a compressed copy of its index records, from which a
damaged index can be restored.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmkv.store.errors import DamageError, ForeignFileError, StoreError
from mmkv.store.files import HEADER, DataFile, NoFile, path_of, read_header
from mmkv.store.index import IndexReader, copied_page
from mmkv.store.records import PAGE, SYNC, record_type, seal

LEAD = struct.Struct("<4sIIQI")  # magic, length and CRC-32 of the copy, payload's length, CRC-32
_MAGIC = b"page"
_MOST_RECORDS = 1 << 26  # bytes of a page's records


def around(payload: int, records: bytes) -> tuple[bytes, bytes]:
    """What precedes and follows a payload of `payload` bytes in the data file."""
    copy = zlib.compress(records, 6)
    lead = LEAD.pack(_MAGIC, len(copy), zlib.crc32(copy), payload, 0)[:-4]
    return lead + struct.pack("<I", zlib.crc32(lead)), copy


@dataclass(frozen=True, slots=True)
class Group:
    """A page in a segment.

    Attributes:
        at: offset of its first record in the index file.
        records: PAGE, BLOCKs, SIDEs.
        start, stop: where its bytes begin and end in the data file.
        found: whether the index had lost it.
        before: what is wrong with pages between the previous one and this one.
    """

    at: int
    records: np.ndarray
    start: int
    stop: int
    found: bool
    before: str | None = None

    @property
    def payload(self) -> int:
        """Where its payload begins in the data file."""
        return self.start + LEAD.size

    @property
    def first(self) -> int:
        """Number of its first block."""
        return int(self.records["block"][0])

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return int(self.records["count"][0])


class Segment:
    """A segment that is read, and may still be written by another process.

    It can be read without its index, and without one of the two headers.

    Attributes:
        number, first: its number, and that of its first block.
        headless: files that lack their header, "index" or "data".
        damage: what is wrong with pages after the last one given that the index still lists.
        position, end: offsets after the last whole page in the index and in the data file.
        synced: offset in the index file after the last SYNC.

    Raises:
        StoreError: the data file is missing.
        DamageError: both headers are damaged, or a file is another store's.
    """

    def __init__(self, folder: Path, number: int, layers: int, store: bytes) -> None:
        self.number = number
        self.headless: list[str] = []
        self.damage: str | None = None
        self.data = DataFile(path_of(folder, number, "data"))
        path = path_of(folder, number, "index")
        self.index: DataFile | NoFile
        try:
            self.index = DataFile(path)
        except StoreError:
            self.index = NoFile(path)
        firsts = []
        for kind, file in (("index", self.index), ("data", self.data)):
            try:
                held, first = read_header(file.bytes(0, HEADER), kind, file.path, store, number)
            except ForeignFileError:
                raise
            except DamageError:
                self.headless.append(kind)
                continue
            if held != layers:
                raise DamageError(f"{file.path}: made for {held} layers, not {layers}")
            firsts.append(first)
        if not firsts:
            raise DamageError(
                f"{self.data.path} and its index have damaged beginnings; restore one of them from "
                "a copy"
            )
        self.first = firsts[0]
        self._layers = layers
        self._type = record_type(layers)
        self.position = HEADER
        self.end = HEADER
        self.synced = HEADER

    def groups(self) -> Iterator[Group]:
        """Pages not given before, up to the end or to where a file is cut short.

        Pages whose records are damaged both in the index and in the data file are skipped if more
        pages follow. `damage` says if pages are missing at the end that a SYNC vouches for.
        """
        index, size = IndexReader(self.index, self._layers), self._type.itemsize
        index.refresh()
        while True:
            head = index.records(self.position, 1)
            if head is not None and head["kind"][0] == SYNC:
                self.position += size
                self.synced = self.position
                continue
            records, found = index.page(self.position), False
            if records is None:
                records, found = self._copy(self.end), True
                if records is None:
                    if self._pass_over(index):
                        continue
                    return
                after = index.records(self.position + size, 1)
                if after is not None and after[:1] == records[:1]:
                    self.position += size  # a damaged SYNC
                    continue
            start = int(records["offset"][0])
            stop = start + int(records["length"][0])
            group = Group(self.position, records, start, stop, found, self.damage)
            if stop > self.data.size:  # cut short, or never whole
                if index.following(self.position, (SYNC,)) is not None:
                    self.damage = f"{self.data.path} is cut short"
                return
            last = found and index.ends(self.position)
            if last and not self.whole(group) and self._copy(stop) is None:
                return
            self.position += len(records) * size
            self.end, self.damage = stop, None
            yield group

    def appended(self, records: np.ndarray) -> Group:
        """Move past a page that was just written after all others, whose records these are."""
        start = int(records["offset"][0])
        stop = start + int(records["length"][0])
        group = Group(self.position, records, start, stop, found=False)
        self.position += len(records) * self._type.itemsize
        self.end, self.damage = stop, None
        return group

    def marked(self) -> None:
        """Move past a SYNC that was just written after everything else."""
        self.position += self._type.itemsize
        self.synced = self.position

    def whole(self, group: Group) -> bool:
        """Whether every byte of a page is as it was written."""
        try:
            for offset, length, check in parts(group.records):
                self.data.array(group.payload + offset, length, check)
        except DamageError:
            return False
        return True

    def _copy(self, at: int) -> np.ndarray | None:
        """The copy in the data file of the records of the page that begins there."""
        lead = self.data.bytes(at, LEAD.size)
        if len(lead) < LEAD.size or zlib.crc32(lead[:-4]) != LEAD.unpack(lead)[-1]:
            return None
        magic, length, check, payload, _ = LEAD.unpack(lead)
        if magic != _MAGIC or at + LEAD.size + payload + length > self.data.size:
            return None
        copy = self.data.bytes(at + LEAD.size + payload, length)
        if zlib.crc32(copy) != check:
            return None
        try:
            raw = zlib.decompressobj().decompress(copy, _MOST_RECORDS)
        except zlib.error:
            return None
        records = copied_page(raw, self._type)
        if records is None:
            return None
        records = records.copy()  # written before the page's length was known
        records["length"][0] = LEAD.size + payload + length
        return np.frombuffer(seal(records), self._type)

    def _pass_over(self, index: IndexReader) -> bool:
        """Skip to the next PAGE or SYNC record in the index; whether there is one."""
        at = index.following(self.position + self._type.itemsize)
        if at is None:
            return False
        later = index.records(at, 1)
        assert later is not None
        self.damage = f"{self.index.path} and {self.data.path} are both damaged there"
        self.position = at
        if later["kind"][0] == PAGE:
            self.end = int(later["offset"][0])
        return True


def parts(records: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Offset in the payload, length and CRC-32 of each part of a page that is read on its own."""
    count = int(records["count"][0])
    at = 0
    for row in records["parts"][: 1 + count]:
        for length, check in row.tolist():
            yield at, length, check
            at += length
    for length, check in records["extra"][0].tolist():
        yield at, length, check
        at += length
    for side in records[1 + count :]:
        yield int(side["offset"]), int(side["length"]), int(side["count"])
