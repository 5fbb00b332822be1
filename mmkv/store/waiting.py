"""Frames that wait for their partner, beside the pages: only a pair of them makes a block."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmkv.store.files import replace_file

NAME = "waiting"


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
    replace_file(path, json.dumps(head).encode() + b"\n" + body)


def load(folder: Path, after: int) -> list[tuple[float, np.ndarray]]:
    """The frames that were kept after this many blocks.

    None if the stream has continued since, or if they are damaged.
    """
    try:
        line, _, body = (folder / NAME).read_bytes().partition(b"\n")
        head = json.loads(line)
        if head["after"] != after or zlib.crc32(body) != head["crc"]:
            return []
        frames, at = [], 0
        for seconds, shape in zip(head["seconds"], head["shapes"], strict=True):
            size = int(np.prod(shape))
            pixels = np.frombuffer(bytearray(body[at : at + size]), dtype=np.uint8)
            frames.append((float(seconds), pixels.reshape(shape)))
            at += size
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return frames
