"""`meta.json`: what a store is, and what made it."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from mmkv.store.errors import DamageError, StoreError, StoreMismatchError
from mmkv.store.files import replace_json
from mmkv.store.records import READ, VERSION

NAME = "meta.json"
FORMAT = "mmkv store"


def is_store(folder: Path) -> bool:
    """Whether the folder holds a store."""
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def check_free(folder: Path) -> None:
    """Find out that nothing but what a killed process left is in the way of a new store.

    Raises:
        StoreError: something is.
    """
    begun = ("lock", NAME + ".new")  # left by a process that was killed before meta.json was there
    try:
        if not folder.exists():
            return
        if any(entry.name not in begun for entry in folder.iterdir()):
            raise StoreError(f"{folder} is not empty and holds no store; name another folder")
    except StoreError:
        raise
    except NotADirectoryError:
        raise StoreError(f"{folder} is a file; name a folder for the store") from None
    except OSError as error:
        raise StoreError(f"no store can be made at {folder}: {error.strerror}") from error


def create(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Make the folder, readable by its owner alone, with a meta.json of these facts.

    Raises:
        StoreError: something is there already, or the folder cannot be made.
    """
    if is_store(folder):
        raise StoreError(
            f"there is a store at {folder} already; append to it with "
            f"open({str(folder)!r}, mode='a'), or remove it with `mmkv rm {folder}`"
        )
    check_free(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
    except StoreError:
        raise
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{folder} is a file; name a folder for the store") from None
    except OSError as error:
        raise StoreError(f"no store can be made at {folder}: {error.strerror}") from error
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "store": uuid.uuid4().hex,
        **facts,
        "segments": {"first": 0, "stop": 0},
    }
    save(folder, meta)
    return meta


def save(folder: Path, meta: dict[str, Any]) -> None:
    """Replace meta.json."""
    replace_json(folder / NAME, meta)


def load(folder: Path) -> dict[str, Any]:
    """What meta.json says.

    Raises:
        StoreError: there is no store, or it cannot be read.
        DamageError: meta.json is damaged.
        StoreMismatchError: the store is of another version.
    """
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"there is no store at {folder}; `mmkv encode VIDEO --store {folder}` or "
            f"stream(store={str(folder)!r}) makes one"
        ) from None
    except PermissionError as error:
        raise StoreError(f"the store {folder} cannot be read: {error.strerror}") from error
    try:
        meta: dict[str, Any] = json.loads(text)
        known = meta["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        raise DamageError(
            f"{folder / NAME} is damaged, or not a store's; restore it from a copy"
        ) from None
    if not known:
        raise StoreError(f"{folder} holds no mmkv store")
    if meta["version"] not in READ:
        raise StoreMismatchError(
            f"the store {folder} has format version {meta['version']}, and this mmkv reads version "
            f"{' and '.join(map(str, READ))}; it was written by mmkv "
            f"{meta.get('mmkv', 'unknown')}, which reads it"
        )
    return meta
