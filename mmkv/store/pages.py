"""A page as it is written to a segment and read back from it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.recfunctions import repack_fields

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.pages import Page, StoredPage
from mmkv.store import about
from mmkv.store.errors import DamageError
from mmkv.store.files import DataFile
from mmkv.store.records import BLOCK, PAGE, SIDE, record_type, seal
from mmkv.store.segment import Group, Segment, around

Buffer = bytes | np.ndarray

_SIDE = ["name", "block", "offset", "length", "count"]  # fields of a SIDE record that are kept


class DiskPage:
    """A page's bytes in a segment's data file; one per page stays in memory, so it is small.

    Args:
        group: the page's index records.
        sizes: bytes of its slices, where they are in memory already, so that they are kept once.
    """

    __slots__ = ("_checks", "_data", "_payload", "_sides", "_sizes")

    def __init__(self, data: DataFile, group: Group, sizes: np.ndarray | None = None) -> None:
        self._data = data
        self._payload = group.payload
        count = group.blocks
        rows = group.records["parts"][: 1 + count]
        self._sizes = rows[:, :, 0].copy() if sizes is None else sizes
        self._checks = rows[:, :, 1].copy()
        sides = group.records[1 + count :]
        self._sides = repack_fields(sides[_SIDE]) if len(sides) else None

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each slice, uint32 `[1 + blocks, L]`."""
        return self._sizes

    def read(self, row: int, layer: int) -> np.ndarray:
        """One slice, uint8; DamageError if its checksum does not match."""
        before = int(self._sizes[:row].sum(dtype=np.int64)) + int(self._sizes[row, :layer].sum())
        return self._data.array(
            self._payload + before, int(self._sizes[row, layer]), int(self._checks[row, layer])
        )

    def damaged_sides(self) -> list[str]:
        """What is wrong with the bytes that are kept beside the page's blocks."""
        found: list[str] = []
        for side in () if self._sides is None else self._sides:
            try:
                self.side(side["name"].decode(), int(side["block"]))
            except DamageError as error:
                found.append(str(error))
        return found

    def side_sizes(self) -> dict[str, int]:
        """Return the bytes that are kept beside the page's blocks, by name."""
        sizes: dict[str, int] = {}
        for side in () if self._sides is None else self._sides:
            name = side["name"].decode()
            sizes[name] = sizes.get(name, 0) + int(side["length"])
        return sizes

    def side(self, name: str, block: int) -> bytes | None:
        """What was kept under this name beside this block, or None."""
        if self._sides is None:
            return None
        for side in self._sides[self._sides["block"] == block]:
            if side["name"] == name.encode():
                offset, length, check = (int(side[f]) for f in ("offset", "length", "count"))
                return self._data.array(self._payload + offset, length, check).tobytes()
        return None


def compose(
    page: Page,
    payload: np.ndarray,
    blocks: Sequence[CachedBlock],
    sides: Sequence[Mapping[str, bytes]],
    summaries: bytes,
    start: int,
) -> tuple[list[Buffer], np.ndarray]:
    """Lay out a page that will begin at `start` in the data file.

    Args:
        payload: its slices one after the other, uint8.
        sides: per block, the bytes kept beside it, by name.

    Returns:
        what to write there, and its index records, sealed.
    """
    layers = page.sizes.shape[1]
    held = [
        (block, name, data)
        for block, kept in zip(blocks, sides, strict=False)
        for name, data in kept.items()
    ]
    records = np.zeros(1 + len(blocks) + len(held), dtype=record_type(layers))
    records["kind"][0] = PAGE
    records["kind"][1 : 1 + len(blocks)] = BLOCK
    records["kind"][1 + len(blocks) :] = SIDE
    at = 0
    for row in range(1 + len(blocks)):
        block = blocks[max(0, row - 1)]
        record = records[row]
        record["block"], record["offset"] = block.index, at
        record["count"] = page.lengths[max(0, row - 1)]
        record["first"], record["last"] = block.seconds
        for layer in range(layers):
            size = int(page.sizes[row, layer])
            record["parts"][layer] = size, zlib.crc32(payload[at : at + size].data)
            at += size
        record["length"] = at - int(record["offset"])
    placing = about.to_bytes(blocks, thinned=page.whole is not None, keyframe=page.keyframe)
    records["extra"][0] = [(len(data), zlib.crc32(data)) for data in (placing, summaries)]
    at += len(placing) + len(summaries)
    for record, (block, name, data) in zip(records[1 + len(blocks) :], held, strict=True):
        record["block"], record["name"] = block.index, name.encode()
        record["offset"], record["length"], record["count"] = at, len(data), zlib.crc32(data)
        at += len(data)
    head = records[0]
    head["count"], head["sides"] = len(blocks), len(held)
    head["last"] = blocks[-1].seconds[1]
    head["offset"] = start
    lead, copy = around(at, seal(records))
    head["length"] = len(lead) + at + len(copy)
    pieces: list[Buffer] = [lead, payload, placing, summaries]
    pieces += [*(data for _, _, data in held), copy]
    seal(records)
    return pieces, records


def restore(segment: Segment, group: Group, reader: about.AboutReader) -> StoredPage:
    """The page that a group of records describes; its keys and values stay on disk.

    Raises:
        DamageError: where its blocks belong, or their summaries, is damaged.
    """
    stored = DiskPage(segment.data, group)
    count = group.blocks
    records = group.records
    page = Page(
        first=group.first,
        lengths=tuple(records["count"][1 : 1 + count].tolist()),
        sizes=stored.sizes,
        stored=stored,
    )
    at = group.payload + page.nbytes
    held = []
    for length, check in records["extra"][0].tolist():
        held.append(segment.data.array(at, length, check).tobytes())
        at += length
    times = (records[name][1 : 1 + count].tolist() for name in ("first", "last"))
    seconds = list(zip(*times, strict=True))
    try:
        blocks, thinned, page.keyframe = reader.read(held[0], page.first, seconds)
    except (ValueError, LookupError, TypeError, zlib.error) as error:
        raise DamageError(
            f"{segment.data.path}: the page at {group.start} does not say where its blocks belong"
        ) from error
    if thinned:
        page.whole = tuple(block.tokens for block in blocks)
    return StoredPage(page, blocks, held[1])
