"""The files that captions are written to: every row is whole, there once, and safe on the disk."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class OutputError(ValueError):
    """The output cannot be written, or does not belong to this run."""


class Output:
    """A JSON Lines file of rows, locked while it is open, and a file of what failed beside it.

    What a killed run left half written at the end is completed or removed. A row is on the disk
    when `add` returns.

    Args:
        path: the file of rows; created if it does not exist.
        errors: the file of failures; None: `errors.jsonl` beside it.

    Attributes:
        rows: what is known of the rows, by id.

    Raises:
        OutputError: another run is writing it, or it holds something else.
    """

    def __init__(self, path: Path, errors: Path | None = None) -> None:
        self.path = path
        self.errors = errors or path.with_name("errors.jsonl")
        if path.resolve() == self.errors.resolve():
            raise OutputError(f"{path}: rows and errors need two files; choose another --out")
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent}: no such folder; make it, or choose another --out")
        try:
            self._file = _locked(path)
        except IsADirectoryError:
            raise OutputError(f"{path} is a folder; --out takes a file") from None
        try:
            repair(self._file, path)
            self.rows = {row["id"]: _Known.of(row) for row in _rows(self._file, path)}
        except BaseException:
            self.close()
            raise

    def add(self, row: Row) -> None:
        """Append a row; once this returns, it survives a power cut."""
        _append(self._file, row)
        self.rows[row["id"]] = _Known.of(row)

    def fail(self, row: Row) -> None:
        """Append a row to the file of failures."""
        descriptor = os.open(self.errors, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # parts of one job may share the file
            repair(descriptor, self.errors)
            _append(descriptor, row)
        finally:
            os.close(descriptor)

    def others(self, digest: str) -> list[str]:
        """List the ids of rows that were made with other settings than `digest`."""
        return [id for id, known in self.rows.items() if known.digest != digest]

    def drop(self, ids: set[str]) -> None:
        """Remove the rows with these ids; the file is replaced as a whole."""
        spare = self.path.with_name(f".{self.path.name}.new")
        descriptor = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(os.dup(descriptor), "wb") as kept:
            for row in _rows(self._file, self.path):
                if row["id"] not in ids:
                    kept.write(_line(row))
        os.fsync(descriptor)
        os.replace(spare, self.path)
        os.close(self._file)
        self._file = descriptor
        self.rows = {id: known for id, known in self.rows.items() if id not in ids}

    def read(self) -> Iterator[Row]:
        """Yield all rows, in the order in which they were written."""
        yield from _rows(self._file, self.path)

    def close(self) -> None:
        """Release the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Known:
    """What is kept in memory of a row."""

    __slots__ = ("digest", "path")

    def __init__(self, path: str, digest: str | None) -> None:
        self.path = path
        self.digest = digest

    @classmethod
    def of(cls, row: Row) -> _Known:
        return cls(row.get("path", ""), row.get("config_hash"))


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise OutputError(
            f"another run is writing {path}; wait for it, or give this one another --out "
            "(several machines: --num-shards and --shard-index)"
        ) from None
    return descriptor


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


def _rows(descriptor: int, path: Path) -> Iterator[Row]:
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


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _append(descriptor: int, row: Row) -> None:
    data = memoryview(_line(row))
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)
