"""A file of JSON lines: opened, locked, repaired and appended to, or why that cannot be done."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutputError(ValueError):
    """The output cannot be written, or does not belong to this run."""


def unwritable(path: Path, error: OSError) -> OutputError:
    """Say that a file cannot be written, why, and what to do.

    Args:
        path: of the file.
        error: what the operating system said.
    """
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        todo = "free some space and run the same command again: it continues"
    else:
        todo = "make it writable, or choose another --out"
    return OutputError(f"{path} cannot be written ({reason}); {todo}")


def check_kind(path: Path) -> None:
    """Refuse a folder, a device and a pipe.

    Raises:
        OutputError: it is one.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # opening it says why
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path} is a folder; --out takes a file")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path} is no ordinary file; --out takes one that can be read back")


def opened(path: Path) -> int:
    """Open a file for reading and appending, or create it; returns its descriptor.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise unwritable(path, error) from error


def locked(path: Path) -> int:
    """Open a file as `opened` does, and lock it until its descriptor is closed.

    Raises:
        OutputError: another process has locked it, or it cannot be locked or written.
    """
    while True:
        descriptor = opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # its holder has replaced it since it was opened
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OutputError(
                    f"{path} cannot be locked ({(error.strerror or str(error)).lower()}); choose "
                    "an --out on another file system"
                ) from error
            raise OutputError(
                f"another run is writing {path}; wait for it, or give this one another --out "
                "(several machines: --num-shards and --shard-index)"
            ) from None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def repair(descriptor: int, path: Path) -> None:
    """Complete or remove a last line that was cut off.

    Args:
        descriptor: the file, open for reading and appending.
        path: of the file, for the message.

    Raises:
        OutputError: the file does not hold JSON lines.
    """
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    begin, tail = size, b""
    while begin and b"\n" not in tail:
        step = min(begin, 1 << 16)
        begin -= step
        tail = os.pread(descriptor, step, begin) + tail
    torn = tail.rpartition(b"\n")[2]
    try:
        whole = isinstance(json.loads(torn), dict)
    except ValueError:
        whole = False
        if not torn.startswith(b"{"):
            raise OutputError(f"{path} does not hold JSON lines; choose another --out") from None
    if whole:
        os.write(descriptor, b"\n")
    else:
        os.ftruncate(descriptor, size - len(torn))
    os.fsync(descriptor)


def rows_of(descriptor: int, path: Path) -> Iterator[Row]:
    """Yield a file's rows from its beginning.

    Args:
        descriptor: the file.
        path: of the file, for the message.

    Raises:
        OutputError: a line is no row.
    """
    with open(os.dup(descriptor), "rb") as file:
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                row["id"]
            except (ValueError, TypeError, KeyError):
                raise OutputError(
                    f"{path}, line {number}: this is no row of captions; choose another --out, "
                    "or remove the line"
                ) from None
            yield row


def line_of(row: Row) -> bytes:
    """Encode a row as a line."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def append(descriptor: int, row: Row, path: Path) -> None:
    """Append a row; it survives a power cut once this returns, and is not there if this raises.

    Args:
        descriptor: the file, open for appending.
        row: what to write.
        path: of the file, for the message.

    Raises:
        OutputError: it cannot be written.
    """
    before = os.fstat(descriptor).st_size
    try:
        data = memoryview(line_of(row))
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    except BaseException as error:
        os.ftruncate(descriptor, before)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise
