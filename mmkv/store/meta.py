"""`meta.json`: what a store is, and what made it; with a checksum, and in two copies."""

from __future__ import annotations

import json
import os
import re
import uuid
import zlib
from pathlib import Path
from typing import Any

from mmkv.store.errors import DamageError, StoreError, StoreMismatchError
from mmkv.store.facts import unusable
from mmkv.store.files import read_small
from mmkv.store.records import READ, VERSION
from mmkv.store.writing import make_folder, replace_files

NAME = "meta.json"
COPY = "meta.copy.json"
FORMAT = "mmkv store"
UNCHECKED = (1, 2)  # versions whose meta.json has no checksum and no copy

_MOST = 1 << 25  # bytes; the largest models take less than 10 MB
_CHECK = re.compile(rb'\{\n "check": "([0-9a-f]{8})",\n')


def is_store(folder: Path) -> bool:
    """Whether the folder holds a store."""
    try:
        load(folder)
    except StoreMismatchError:
        return True
    except StoreError:
        return False
    return True


def check_free(folder: Path) -> None:
    """Find out that nothing but what a killed process left is in the way of a new store.

    Raises:
        StoreError: something is.
    """
    try:
        if folder.exists():
            refuse_used(folder)
    except StoreError:
        raise
    except NotADirectoryError:
        raise StoreError(f"{folder} is a file; name a folder for the store") from None
    except OSError as error:
        raise StoreError(f"no store can be made at {folder}: {error.strerror}") from error


def prepare(folder: Path) -> None:
    """Make the folder for a new store, readable by its owner alone.

    Raises:
        StoreError: something is there already, or the folder cannot be made.
    """
    check_free(folder)
    try:
        make_folder(folder)
        os.chmod(folder, 0o700)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{folder} is a file; name a folder for the store") from None
    except OSError as error:
        raise StoreError(f"no store can be made at {folder}: {error.strerror}") from error


def refuse_used(folder: Path) -> None:
    """Raise StoreError if there is anything in the folder, also a damaged store."""
    try:
        load(folder)
    except StoreMismatchError:
        pass
    except StoreError:
        if (folder / NAME).exists() or (folder / COPY).exists():
            raise
        begun = ("lock", NAME + ".new", COPY + ".new")  # left by a process killed at this point
        if any(entry.name not in begun for entry in folder.iterdir()):
            raise StoreError(
                f"{folder} is not empty and holds no store; name another folder"
            ) from None
        return
    raise StoreError(
        f"there is a store at {folder} already; append to it with "
        f"open({str(folder)!r}, mode='a'), or remove it with `mmkv rm {folder}`"
    )


def create(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the meta.json of a new store, with these facts; its folder is there, and locked.

    Raises:
        StoreError: another process has made a store there meanwhile.
        OSError: it cannot be written.
    """
    refuse_used(folder)
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "store": uuid.uuid4().hex,
        **facts,
        "segments": {"first": 0, "stop": 0},
        "stored": 0,
    }
    save(folder, meta)
    return meta


def save(folder: Path, meta: dict[str, Any]) -> None:
    """Replace meta.json and its copy.

    The copy comes first in the folder: it is never older than what readers find.
    """
    raw = to_bytes(meta)
    replace_files((folder / COPY, raw), (folder / NAME, raw))


def load(folder: Path, notes: list[str] | None = None) -> dict[str, Any]:
    """What meta.json says, or its copy where it is damaged.

    Args:
        notes: gets a sentence if the copy was used.

    Raises:
        StoreError: there is no store, or it cannot be read.
        DamageError: both are damaged.
        StoreMismatchError: the store is of another version.
    """
    path = folder / NAME
    try:
        return _read(path)
    except StoreMismatchError:
        raise
    except FileNotFoundError:
        meta = _read_copy(folder, None)
        what = f"{path} is missing"
    except StoreError as error:
        meta = _read_copy(folder, error)
        what = str(error).split(";")[0]
    if notes is not None:
        notes.append(f"{what}; {COPY} was used in its place")
    return meta


def _read_copy(folder: Path, first: StoreError | None) -> dict[str, Any]:
    """What the copy says; `first` is what is wrong with meta.json, None where it is missing."""
    try:
        return _read(folder / COPY)
    except StoreMismatchError:
        raise
    except FileNotFoundError:
        if first is not None:
            raise first from None
        raise StoreError(
            f"there is no store at {folder}; `mmkv encode VIDEO --store {folder}` or "
            f"stream(store={str(folder)!r}) makes one"
        ) from None
    except StoreError:
        if not isinstance(first, DamageError):
            if first is None:
                raise
            raise first from None
        raise DamageError(
            f"{folder / NAME} and its copy {COPY} are both damaged; restore one of them from a "
            "backup"
        ) from None
    finally:
        first = None  # else it would keep what its own traceback leads to


def copy_damage(folder: Path) -> str | None:
    """What is wrong with the copy of a sound meta.json; None if nothing is."""
    try:
        _read(folder / COPY)
    except FileNotFoundError:
        return f"{folder / COPY} is missing; {NAME}, of which it is the copy, is whole"
    except StoreError as error:
        return f"{str(error).split(';')[0]}; {NAME}, of which it is the copy, is whole"
    return None


def to_bytes(meta: dict[str, Any]) -> bytes:
    """A meta.json, whose first key is the CRC-32 of all that follows it."""
    body = (json.dumps(meta, indent=1) + "\n")[2:].encode()
    return b'{\n "check": "%08x",\n' % zlib.crc32(body) + body


def _read(path: Path) -> dict[str, Any]:
    raw = read_small(path, _MOST)
    check = _CHECK.match(raw)
    damaged = DamageError(f"{path} is damaged, or not a store's; restore it from a backup")
    if check is not None and int(check[1], 16) != zlib.crc32(memoryview(raw)[check.end() :]):
        raise damaged
    try:
        meta: dict[str, Any] = json.loads(raw)
        known, version = meta["format"] == FORMAT, meta["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged from None
    if not known:
        raise StoreError(f"{path.parent} holds no mmkv store")
    if version not in READ:
        raise StoreMismatchError(
            f"the store {path.parent} has format version {version}, and this mmkv reads "
            f"versions {', '.join(map(str, READ[:-1]))} and {READ[-1]}; it was written by mmkv "
            f"{meta.get('mmkv', 'unknown')}, which reads it"
        )
    if check is None and (version not in UNCHECKED or next(iter(meta)) != "format"):
        raise damaged
    wrong = unusable(meta)
    if wrong is not None:
        raise DamageError(f"{path} is damaged at {wrong!r}; restore it from a backup")
    meta.pop("check", None)
    return meta
