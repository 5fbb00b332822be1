"""The index: fixed-size records, little-endian, each with its own checksum.

A page is one PAGE record, one BLOCK record per block, one SIDE record per side, written at once.
`parts` holds per layer the length and CRC-32 of a slice: of what the page's blocks share (PAGE),
or of the block's codes (BLOCK). SYNC says that everything before it has reached the disk.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np

VERSION = 3
READ = (1, 2, 3)  # since 2, pages may lack evicted tokens; since 3, meta.json has a checksum
PAGE, BLOCK, SIDE, SYNC = 1, 2, 3, 4
NAME_BYTES = 16


@cache
def record_type(layers: int) -> np.dtype:
    """The dtype of one record.

    crc      CRC-32 of the bytes after it.
    kind     PAGE, BLOCK, SIDE or SYNC.
    block    the block's number; PAGE: the first one's; SYNC: the number of blocks stored.
    count    PAGE: number of blocks; BLOCK: number of stored tokens; SIDE: CRC-32 of its bytes.
    sides    PAGE: number of SIDE records that follow.
    offset, length   its bytes in the data file; PAGE: all of the page's.
    first, last      times of its first and last frame, in seconds.
    extra    PAGE: length and CRC-32 of what says where the blocks belong, then of their summaries;
             both follow the blocks, in this order.
    name     SIDE: its name.
    parts    length and CRC-32 of a slice, per layer.
    """
    return np.dtype(
        [
            ("crc", "<u4"),
            ("kind", "u1"),
            ("pad", "u1", (3,)),
            ("block", "<u8"),
            ("count", "<u4"),
            ("sides", "<u4"),
            ("offset", "<u8"),
            ("length", "<u8"),
            ("first", "<f8"),
            ("last", "<f8"),
            ("extra", "<u4", (2, 2)),
            ("name", f"S{NAME_BYTES}"),
            ("parts", "<u4", (layers, 2)),
        ]
    )


def seal(records: np.ndarray) -> bytes:
    """Records as bytes, with their checksums filled in."""
    for i in range(len(records)):
        records["crc"][i] = zlib.crc32(records[i : i + 1].tobytes()[4:])
    return records.tobytes()


def sound(record: np.ndarray) -> bool:
    """Whether the one record in `record` is as it was written."""
    return int(record["crc"][0]) == zlib.crc32(record.tobytes()[4:])
