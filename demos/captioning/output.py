"""The files that captions are written to: every row is whole, there once, and safe on the disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mmkv.demos.captioning.disk import (
    OutputError,
    Row,
    append,
    check_kind,
    line_of,
    locked,
    opened,
    repair,
    rows_of,
    unwritable,
)

__all__ = ["Output", "OutputError", "Row"]

_ERRORS = ".errors.jsonl"


class Output:
    """A JSON Lines file of rows, locked while it is open, and a file of what failed beside it.

    What a killed run left half written at the end is completed or removed, and so are its
    temporary files. A row is on the disk when `add` returns.

    Args:
        path: the file of rows; created if it does not exist.
        errors: the file of failures; None: beside it, `rows.errors.jsonl` for `rows.jsonl`.

    Attributes:
        rows: what is known of the rows, by id.

    Raises:
        OutputError: another run is writing it, it cannot be written, or it holds something else.
    """

    def __init__(self, path: Path, errors: Path | None = None) -> None:
        self.path = path
        self.errors = errors or path.with_name(f"{path.stem}{_ERRORS}")
        if path.name.endswith(_ERRORS) or path.resolve() == self.errors.resolve():
            raise OutputError(f"{path} is a file of failures, not of rows; choose another --out")
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent}: no such folder; make it, or choose another --out")
        check_kind(path)
        self._file = locked(path)
        try:
            self._spare.unlink(missing_ok=True)
            repair(self._file, path)
            self.rows = {row["id"]: _Known.of(row) for row in rows_of(self._file, path)}
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise unwritable(path, error) from error
            raise

    @property
    def _spare(self) -> Path:
        return self.path.with_name(f".{self.path.name}.new")

    def add(self, row: Row) -> None:
        """Append a row; once this returns, it survives a power cut.

        Raises:
            OutputError: it cannot be written, for example because the disk is full; nothing of it
                is in the file then.
        """
        append(self._file, row, self.path)
        self.rows[row["id"]] = _Known.of(row)

    def fail(self, row: Row) -> None:
        """Append a row to the file of failures.

        Raises:
            OutputError: it cannot be written; nothing of it is in the file then.
        """
        check_kind(self.errors)
        descriptor = opened(self.errors)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # outputs of one stem share the file
            repair(descriptor, self.errors)
            append(descriptor, row, self.errors)
        finally:
            os.close(descriptor)

    def others(self, digest: str) -> list[str]:
        """List the ids of rows that were made with other settings than `digest`."""
        return [id for id, known in self.rows.items() if known.digest != digest]

    def drop(self, ids: set[str]) -> None:
        """Remove the rows with these ids; the file is replaced as a whole.

        Raises:
            OutputError: the new file cannot be written; the old one is as it was.
        """
        descriptor = opened(self._spare)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with os.fdopen(os.dup(descriptor), "wb") as kept:
                for row in rows_of(self._file, self.path):
                    if row["id"] not in ids:
                        kept.write(line_of(row))
            os.fsync(descriptor)
            os.replace(self._spare, self.path)
        except BaseException as error:
            os.close(descriptor)
            self._spare.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise unwritable(self.path, error) from error
            raise
        os.close(self._file)
        self._file = descriptor
        self.rows = {id: known for id, known in self.rows.items() if id not in ids}

    def read(self) -> Iterator[Row]:
        """Yield all rows, in the order in which they were written."""
        yield from rows_of(self._file, self.path)

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
