"""The files of a store as they are read: their names, their headers, and plain reads."""

from __future__ import annotations

import os
import re
import stat
import struct
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmkv.store.errors import DamageError, ForeignFileError, StoreError
from mmkv.store.records import VERSION

HEADER = 64
SEGMENT_NAME = re.compile(r"(\d{6,})\.(data|index)")
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


def read_header(raw: bytes, kind: str, path: Path, store: bytes, number: int) -> tuple[int, int]:
    """Number of layers, and number of the first block.

    Args:
        store, number: the store's id and the segment's number that the file's place asks for.

    Raises:
        DamageError: these are not the first bytes of such a file.
        ForeignFileError: they are another store's, or another segment's.
    """
    sound = len(raw) == HEADER and raw[-4:] == struct.pack("<I", zlib.crc32(raw[:-4]))
    if not sound:
        raise DamageError(f"{path}: its first {HEADER} bytes are damaged; restore it from a copy")
    magic, _, layers, own, first, owner = _HEADER.unpack(raw[: _HEADER.size])
    if magic != _MAGIC[kind] or owner != store:
        raise ForeignFileError(f"{path} belongs to another store; put the right file back")
    if own != number:
        raise ForeignFileError(f"{path} holds segment {own}, not {number}; put the right file back")
    return layers, first


def open_to_read(path: Path) -> int:
    """Open a plain file for reading, without waiting for anybody.

    Raises:
        FileNotFoundError: nothing is there.
        StoreError: it cannot be opened, or is a folder, a pipe or a device.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise StoreError(f"{path} is not a file; put the store's own file back")
    return number


def read_small(path: Path, most: int) -> bytes:
    """All bytes of a small file.

    Args:
        most: bytes that such a file may have.

    Raises:
        FileNotFoundError: nothing is there.
        StoreError: it cannot be read.
        DamageError: it is larger.
    """
    number = open_to_read(path)
    try:
        if os.fstat(number).st_size > most:
            raise DamageError(f"{path} has more than {most} bytes, so it is damaged")
        with open(number, "rb", closefd=False) as file:
            return file.read(most)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(number)


@dataclass(frozen=True, slots=True)
class NoFile:
    """Stands in for a file that is missing: nothing is in it."""

    path: Path
    size: int = 0

    def bytes(self, offset: int, length: int) -> bytes:
        """Empty, whatever is asked for."""
        return b""


class DataFile:
    """A file open for reading, which stays readable after its name is gone.

    Raises:
        StoreError: it is missing, or no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._number = open_to_read(path)
        except FileNotFoundError:
            raise StoreError(
                f"{path} is missing; put the file back, or remove the store with `mmkv rm "
                f"{path.parent}`"
            ) from None
        self._close = weakref.finalize(self, os.close, self._number)
        self._close.atexit = False  # what is still written at the end of the process may need it

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._number).st_size

    def bytes(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on.

        Raises:
            DamageError: the disk cannot read them.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        try:
            return os.pread(self._number, length, offset)
        except OSError as error:
            raise DamageError(
                f"{self.path} cannot be read at {offset}: {error.strerror}"
            ) from error

    def array(self, offset: int, length: int, check: int) -> np.ndarray:
        """`length` bytes from `offset` on, uint8.

        Raises:
            DamageError: their CRC-32 is not `check`, or the disk cannot read them.
        """
        # before memory is taken for them
        found = np.empty(length if offset + length <= self.size else 0, dtype=np.uint8)
        done = 0
        while done < len(found):
            try:
                more = os.preadv(self._number, [found.data[done:]], offset + done)
            except OSError:
                break
            if not more:
                break
            done += more
        if done < length or zlib.crc32(found.data) != check:
            raise DamageError(
                f"{self.path}: the {length} bytes at {offset} are damaged; restore the file from a "
                "copy, or ask with since= and until= about another part of the stream"
            )
        return found
