"""Frames that wait for their partner, beside the pages: only a pair of them makes a block."""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkv.store.errors import DamageError, StoreError
from mmkv.store.files import read_small
from mmkv.store.writing import replace_files

log = logging.getLogger("mmkv.store")

NAME = "waiting"

_MOST = 1 << 28  # bytes; a frame of 8K video takes 100 MB
_CHECK = re.compile(rb"([0-9a-f]{8}) ")


def save(folder: Path, after: int, frames: Sequence[tuple[float, np.ndarray]]) -> None:
    """Keep frames that come after block number `after - 1`.

    Args:
        after: number of blocks before them.
        frames: times in seconds, and frames uint8 `[H, W, 3]`.

    Raises:
        OSError: they cannot be written.
    """
    path = folder / NAME
    if not frames:
        path.unlink(missing_ok=True)
        return
    body = b"".join(np.ascontiguousarray(frame).tobytes() for _, frame in frames)
    head = {
        "after": after,
        "seconds": [seconds for seconds, _ in frames],
        "shapes": [list(frame.shape) for _, frame in frames],
        "crc": zlib.crc32(body),
    }
    line = json.dumps(head).encode() + b"\n"
    replace_files((path, b"%08x " % zlib.crc32(line) + line + body))


def load(folder: Path, after: int) -> list[tuple[float, np.ndarray]]:
    """The frames that were kept after this many blocks.

    None if the stream has continued since, or if they are damaged, which is logged.
    """
    path = folder / NAME
    try:
        head, body = _read(path)
    except FileNotFoundError:
        return []
    except StoreError as error:
        log.warning("the store %s has lost a frame that waited for its partner: %s", folder, error)
        return []
    if head["after"] != after:
        return []
    frames, at = [], 0
    for seconds, shape in zip(head["seconds"], head["shapes"], strict=True):
        size = int(np.prod(shape))
        pixels = np.frombuffer(bytearray(body[at : at + size]), dtype=np.uint8)
        frames.append((float(seconds), pixels.reshape(shape)))
        at += size
    return frames


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The file's first line and the pixels after it, both as they were written."""
    line, _, body = read_small(path, _MOST).partition(b"\n")
    check = _CHECK.match(line)  # stores of versions 1 and 2 have none
    if check is not None:
        line = line[check.end() :]
    damaged = DamageError(f"{path} is damaged; the frames are lost")
    if check is not None and int(check[1], 16) != zlib.crc32(line + b"\n"):
        raise damaged
    try:
        head: dict[str, Any] = json.loads(line)
        shapes, seconds = head["shapes"], head["seconds"]
        fits = all(
            len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape) for shape in shapes
        )
        whole = sum(int(np.prod(shape, dtype=object)) for shape in shapes) == len(body)
        sound = fits and whole and len(shapes) == len(seconds) and head["after"] >= 0
        if not sound or zlib.crc32(body) != head["crc"] or not all(map(np.isfinite, seconds)):
            raise damaged
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged from None
    return head, body
