"""What `meta.json` must say before any of it is used."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmkv.archive.blocks import SUMMARY_KINDS
from mmkv.store.errors import DamageError

_MOST_SEGMENTS = 1_000_000
_DTYPES = ("float64", "float32", "float16", "bfloat16")


def unusable(meta: Mapping[str, Any]) -> str | None:
    """The first key whose value no writer would have put there; None if there is none.

    Versions 1 and 2 have no checksum, so this is all that tells damage in them from facts.
    """
    for name, fits in _NEEDED.items():
        if name not in meta or not fits(meta[name]):
            return name
    for name, fits in _KNOWN.items():
        if name in meta and not fits(meta[name]):
            return name
    size = 4 * meta["layers"] * meta["kv_heads"] * meta["head_dim"]
    if "summaries" in meta and not _summaries(meta["summaries"], size):
        return "summaries"
    if (
        "summaries" in meta
        and meta["version"] < 3
        and meta["summaries"]["kind"] not in SUMMARY_KINDS
    ):
        return "summaries"
    return None


def check_stream(meta: Mapping[str, Any], folder: Path) -> None:
    """Find out that a stream can be made of what `meta.json` says.

    Raises:
        DamageError: a fact is missing. Only versions 1 and 2, which have no checksum, can lack one.
    """
    for name in ("model", "codec", "config", "dtype", "system", "prefix", "created", "mmkv"):
        if name not in meta:
            raise DamageError(
                f"{folder / 'meta.json'} is damaged at {name!r}; restore it from a backup"
            )


def _int(value: Any, least: int = 0, most: int = 1 << 62) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return least <= value <= most


def _seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _size(value: object) -> bool:
    return _int(value, 1, 1 << 20)


def _segments(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    first: Any = value.get("first")
    stop: Any = value.get("stop")
    return _int(first) and _int(stop, first) and stop - first <= _MOST_SEGMENTS


def _named(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def _summaries(value: object, size: int) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    centre = value.get("centre", "")
    if centre is None:
        return True
    try:
        return len(base64.b64decode(centre, validate=True)) == size
    except (ValueError, TypeError):
        return False


_NEEDED: dict[str, Callable[[Any], bool]] = {
    "store": lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{32}", value)),
    "layers": _size,
    "kv_heads": _size,
    "head_dim": _size,
    "segments": _segments,
}
_KNOWN: dict[str, Callable[[Any], bool]] = {
    "stored": _int,
    "model": _named,
    "codec": _named,
    "config": lambda value: isinstance(value, dict),
    "dtype": lambda value: value in _DTYPES,
    "system": lambda value: value is None or isinstance(value, str),
    "prefix": lambda value: isinstance(value, list) and all(map(_int, value)),
    "grid": lambda value: value is None or isinstance(value, dict),
    "first_seconds": _seconds,
    "block_tokens": _int,
    "far_distance": lambda value: value is None or _int(value),
}
