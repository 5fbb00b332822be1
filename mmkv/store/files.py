"""Writing so that files on disk are always whole: folders, small files, headers, plain reads."""

from __future__ import annotations

import json
import os
import struct
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmkv.store.errors import DamageError, ForeignFileError, StoreError
from mmkv.store.records import VERSION

HEADER = 64
_HEADER = struct.Struct("<8sIIQQ16s")
_MAGIC = {"data": b"mmkvdata", "index": b"mmkvindx"}


def path_of(folder: Path, number: int, kind: str) -> Path:
    """The file of a segment; kind is "data" or "index"."""
    return folder / f"{number:06d}.{kind}"


def make_header(kind: str, layers: int, number: int, first: int, store: bytes) -> bytes:
    """The first bytes of a segment's file.

    Args:
        kind: "data" or "index".
        number, first: of the segment, and of its first block.
        store: the store's id, 16 bytes.
    """
    body = _HEADER.pack(_MAGIC[kind], VERSION, layers, number, first, store)
    body = body.ljust(HEADER - 4, b"\0")
    return body + struct.pack("<I", zlib.crc32(body))


def read_header(raw: bytes, kind: str, path: Path, store: bytes) -> tuple[int, int]:
    """Number of layers, and number of the first block.

    Raises:
        DamageError: these are not the first bytes of such a file.
        ForeignFileError: they are another store's.
    """
    sound = len(raw) == HEADER and raw[-4:] == struct.pack("<I", zlib.crc32(raw[:-4]))
    if not sound:
        raise DamageError(f"{path}: its first {HEADER} bytes are damaged; restore it from a copy")
    magic, _, layers, _, first, owner = _HEADER.unpack(raw[: _HEADER.size])
    if magic != _MAGIC[kind] or owner != store:
        raise ForeignFileError(f"{path} belongs to another store; put the right file back")
    return layers, first


def sync_folder(folder: Path) -> None:
    """Return when the names of new files have reached the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file so that readers, and a power cut, find the old one or the new one."""
    beside = path.with_name(path.name + ".new")
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(number, [content], 0)
        os.fsync(number)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(number)
    os.replace(beside, path)
    sync_folder(path.parent)


def replace_json(path: Path, content: dict[str, Any]) -> None:
    """`replace_file` with JSON."""
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())


def write_all(number: int, pieces: Sequence[bytes | np.ndarray], offset: int) -> int:
    """Write pieces one after the other from `offset` on.

    Returns:
        the offset where they end.
    """
    views = [piece.data if isinstance(piece, np.ndarray) else memoryview(piece) for piece in pieces]
    waiting = [view.cast("B") for view in views if len(view)]
    while waiting:
        done = os.pwritev(number, waiting[:64], offset)
        offset += done
        while waiting and done >= len(waiting[0]):
            done -= len(waiting.pop(0))
        if waiting and done:
            waiting[0] = waiting[0][done:]
    return offset


@dataclass(frozen=True, slots=True)
class NoFile:
    """Stands in for a file that is missing: nothing is in it."""

    path: Path
    size: int = 0

    def bytes(self, offset: int, length: int) -> bytes:
        """Empty, whatever is asked for."""
        return b""


class DataFile:
    """A file open for reading, which stays readable after its name is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreError(
                f"{path} is missing; put the file back, or remove the store with `mmkv rm "
                f"{path.parent}`"
            ) from None
        self._close = weakref.finalize(self, os.close, self._number)

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._number).st_size

    def bytes(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on."""
        return os.pread(self._number, length, offset)

    def array(self, offset: int, length: int, check: int) -> np.ndarray:
        """`length` bytes from `offset` on, uint8.

        Raises:
            DamageError: their CRC-32 is not `check`.
        """
        found = np.empty(length, dtype=np.uint8)
        done = 0
        while done < length:
            more = os.preadv(self._number, [found.data[done:]], offset + done)
            if not more:
                break
            done += more
        if done < length or zlib.crc32(found.data) != check:
            raise DamageError(
                f"{self.path}: the {length} bytes at {offset} are damaged; restore the file from a "
                "copy, or ask with since= and until= about another part of the stream"
            )
        return found
