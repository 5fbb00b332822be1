"""One writer per store: a lock that ends with the process holding it, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from mmkv.store.errors import StoreError

NAME = "lock"

_LOOKING = 60.0  # seconds after which a process that only looks is done with the lock


def written_by(folder: Path) -> str | None:
    """The id of the process writing the store, "unknown" if it left none; None if none writes."""
    try:
        file = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # a shared lock, and only for a moment: a writer that starts just then tries again
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(file)
    return None


class Lock:
    """The right to write to a store, until `release` or the end of the process.

    Raises:
        StoreError: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(self._file)
        except OSError as error:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                holder = os.pread(self._file, 32, 0).decode().strip()
            os.close(self._file)
            self._file = -1
            raise StoreError(
                f"the store {folder} is being written by process {holder or 'unknown'}; wait for "
                "it, or open the store with mode='r', which works at the same time"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let other processes write."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _take(file: int) -> None:
    end = time.monotonic() + _LOOKING
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a writer does not allow this
            fcntl.flock(file, fcntl.LOCK_UN)
            if time.monotonic() > end:
                raise
            time.sleep(0.02)  # another process is only looking
        else:
            return
