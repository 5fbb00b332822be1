"""One writer per store: a lock that ends with the process holding it, however that ends.

The folder itself is locked, so that nobody is let in by removing the file `lock`. That file is
locked as well: for file systems that lock no folders, and to say who writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import weakref
from pathlib import Path

from mmkv.store.errors import StoreError
from mmkv.store.files import open_to_read
from mmkv.store.writing import is_at, open_to_write, write_all

NAME = "lock"

_LOOKING = 60.0  # seconds after which a process that only looks is done with the lock
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def written_by(folder: Path) -> str | None:
    """The id of the process writing the store, "unknown" if it left none; None if none writes."""
    holder, written = "", False
    for path in (folder, folder / NAME):
        try:
            file = _folder(path) if path == folder else open_to_read(path)
        except OSError:
            continue
        try:
            # a shared lock, and only for a moment: a writer that starts just then tries again
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            written = True
        except OSError:
            pass
        finally:
            if path != folder:
                holder = _holder(file)
            os.close(file)
    return (holder or "unknown") if written else None


class Lock:
    """The right to write to a store, until `release` or the end of the process.

    Raises:
        StoreError: another process has it, or the file is not the store's own.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = [_folder(folder)]
        # also where an interrupt leaves nobody to call `release`
        self._close = weakref.finalize(self, _release, self._files, os.getpid())
        self._close.atexit = False  # the process ends it anyway, after what waits was written
        try:
            end = time.monotonic() + _LOOKING
            _take(self._files[0], end, optional=True)
            while True:
                file = open_to_write(folder / NAME, os.O_CREAT)
                self._files[1:] = [file]
                _take(file, end)
                # not a file that was removed or replaced while it was opened
                if is_at(folder / NAME, file):
                    break
                os.close(self._files.pop())
            if not self.in_place:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
            os.ftruncate(file, 0)
            write_all(file, [f"{os.getpid()}\n".encode()], 0)
        except BlockingIOError as error:
            holder = written_by(folder)
            self.release()
            raise StoreError(
                f"the store {folder} is being written by process {holder or 'unknown'}; wait for "
                "it, or open the store with mode='r', which works at the same time"
            ) from error
        except BaseException:
            self.release()
            raise

    @property
    def in_place(self) -> bool:
        """Whether the folder still has its name."""
        return bool(self._files) and is_at(self.folder, self._files[0])

    def release(self) -> None:
        """Let other processes write."""
        self._close()


def _release(files: list[int], process: int) -> None:
    for file in files:
        if os.getpid() == process:  # else it is the parent's, and closed here alone
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)
    files.clear()


def _folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _holder(file: int) -> str:
    return os.pread(file, 32, 0).decode(errors="replace").strip()


def _take(file: int, end: float, *, optional: bool = False) -> None:
    """Lock a file.

    Args:
        end: until when to wait for processes that only look.
        optional: whether to go on where the file system has no such lock.
    """
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a writer does not allow this
            fcntl.flock(file, fcntl.LOCK_UN)
            if time.monotonic() > end:
                raise
            time.sleep(0.02)  # another process is only looking
        except OSError as error:
            if optional and error.errno in _NO_LOCKS:
                return
            raise
        else:
            return
