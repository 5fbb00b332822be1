"""Writing so that files are always whole, are on the disk when it is said, and are the store's own.

No function here writes through a symbolic link, into a file that has a second name, or into
anything but a plain file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmkv.store.errors import StoreError

_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def sync_folder(folder: Path) -> None:
    """Return when the names of new files have reached the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and return when their names have reached the disk.

    Raises:
        FileExistsError: there is a file of this name.
        OSError: it cannot be made.
    """
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):
            one.mkdir(mode=0o700 if one == folder else 0o777)
        if not one.is_dir():
            raise FileExistsError(one)
        if one != folder:
            sync_folder(one.parent)
    # also where it was there already: whoever made it may not have waited for the disk
    with contextlib.suppress(PermissionError):  # it may be allowed to enter, and not to list
        sync_folder(folder.parent)


def open_to_write(path: Path, flags: int = 0) -> int:
    """Open a file of the store for reading and writing; it is not truncated.

    Args:
        flags: `os.O_CREAT` to make it where it is missing.

    Raises:
        StoreError: it is a link, a folder, a pipe, or has a second name.
        OSError: it cannot be opened.
    """
    if path.is_symlink():
        raise _not_ours(path, "a symbolic link")
    if path.is_dir():
        raise _not_ours(path, "a folder")
    number = os.open(path, os.O_RDWR | _CAREFUL | flags, 0o600)
    found = os.fstat(number)
    what = None
    if not stat.S_ISREG(found.st_mode):
        what = "no plain file"
    elif found.st_nlink > 1:
        what = "also known by another name (a hard link), which would be written to as well"
    if what is not None:
        os.close(number)
        raise _not_ours(path, what)
    return number


def open_new(path: Path) -> int:
    """Make a file that nobody else has, and open it for reading and writing.

    What had its name before, such as the rest of an interrupted attempt, loses it.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CAREFUL, 0o600)


def is_at(path: Path, number: int) -> bool:
    """Whether a name still is that of an open file or folder."""
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except OSError:
        return False


def replace_files(*files: tuple[Path, bytes]) -> None:
    """Write small files so that readers, and a power cut, find the old or the new one of each.

    They are renamed in the order in which they are given, all in one folder.
    """
    beside = [path.with_name(path.name + ".new") for path, _ in files]
    try:
        for new, (_, content) in zip(beside, files, strict=True):
            number = open_new(new)
            try:
                write_all(number, [content], 0)
                os.fsync(number)
            finally:
                os.close(number)
        for new, (path, _) in zip(beside, files, strict=True):
            os.replace(new, path)
    except OSError:
        for new in beside:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
        raise
    sync_folder(files[0][0].parent)


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


def _not_ours(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path} is {what}, so it is not written to; remove it, or put the store's own file back"
    )
