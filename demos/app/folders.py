"""Temporary folders: one per server, one in it per session, none left behind."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import IO

PREFIX = "mmkv-demo"


class Folders:
    """A folder of this server alone, readable by its owner only.

    What an earlier server left behind when it was killed is deleted: each running server holds a
    lock on its own folder.

    Args:
        parent: where it is made; None for the system's temporary folder.

    Attributes:
        root: the server's folder.

    Raises:
        OSError: it cannot be made there.
    """

    def __init__(self, parent: Path | None = None) -> None:
        base = (parent or Path(tempfile.gettempdir())) / f"{PREFIX}-{os.getuid()}"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.getuid():
            raise PermissionError(
                f"{base} belongs to another user; choose another folder with --temp DIR"
            )
        base.chmod(0o700)
        for left in base.iterdir():
            _delete_if_left(left)
        self.root = base / secrets.token_hex(8)
        self.root.mkdir(mode=0o700)
        self._lock = _locked(self.root)

    def new(self) -> Path:
        """Make a folder for one session, under a name that nobody can guess."""
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def close(self) -> None:
        """Delete everything."""
        delete(self.root)
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def delete(folder: Path) -> None:
    """Remove a folder with everything in it, if it exists."""
    shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> IO[str] | None:
    """The folder's lock, held until closed; None where a running server holds it."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _delete_if_left(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    try:
        lock = _locked(folder)
    except OSError:
        return
    if lock is not None:
        delete(folder)
        lock.close()
