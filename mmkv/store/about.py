"""Where a page's blocks belong in the stream, as a few compressed bytes: JSON, never pickle."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

import numpy as np

from mmkv.archive.blocks import CachedBlock
from mmkv.models.block import Layout


def to_bytes(
    blocks: Sequence[CachedBlock], *, thinned: bool = False, keyframe: int | None = None
) -> bytes:
    """Serialise everything about a page's blocks except their times, keys, values and sides.

    Args:
        thinned: whether some of their tokens are missing.
        keyframe: see `Page`.
    """
    layouts: dict[str, int] = {}
    numbers = []
    for block in blocks:
        layout = block.layout
        text = json.dumps(
            {
                "before": list(map(int, layout.before)),
                "after": list(map(int, layout.after)),
                "offsets": layout.offsets.tolist(),
                "advance": list(map(int, layout.advance)),
            },
            separators=(",", ":"),
        )
        numbers.append(layouts.setdefault(text, len(layouts)))
    about = {
        "start": blocks[0].start,
        "frame": blocks[0].frame,
        "frames": [block.frames for block in blocks],
        "origins": [block.origin.tolist() for block in blocks],
        "layout": numbers,
        "layouts": [json.loads(text) for text in layouts],
        "thinned": thinned,
        "keyframe": keyframe,
    }
    return zlib.compress(json.dumps(about, separators=(",", ":")).encode(), 6)


class AboutReader:
    """Turns such bytes into blocks again; equal offsets share their memory."""

    def __init__(self) -> None:
        self._offsets: dict[str, np.ndarray] = {}

    def read(
        self, stored: bytes, first: int, seconds: Sequence[tuple[float, float]]
    ) -> tuple[list[CachedBlock], bool, int | None]:
        """Restore a page's blocks.

        Args:
            first: the first block's number.
            seconds: times of each block's first and last frame.

        Returns:
            the blocks; whether some of their tokens are missing; the page's keyframe. (Version 1
            has neither of the last two.)
        """
        about = json.loads(zlib.decompress(stored))
        layouts = [self._layout(layout) for layout in about["layouts"]]
        start, frame = int(about["start"]), int(about["frame"])
        blocks = []
        for i, times in enumerate(seconds):
            layout = layouts[about["layout"][i]]
            block = CachedBlock(
                index=first + i,
                start=start,
                frame=frame,
                frames=int(about["frames"][i]),
                seconds=times,
                layout=layout,
                origin=np.array(about["origins"][i], dtype=np.int64),
            )
            blocks.append(block)
            start, frame = start + block.tokens, frame + block.frames
        return blocks, bool(about.get("thinned")), about.get("keyframe")

    def _layout(self, layout: dict[str, list[int]]) -> Layout:
        key = json.dumps(layout["offsets"])
        if key not in self._offsets:
            if len(self._offsets) > 1024:
                self._offsets.clear()
            offsets = np.array(layout["offsets"], dtype=np.int64)
            offsets.setflags(write=False)
            self._offsets[key] = offsets
        return Layout(
            tuple(layout["before"]),
            tuple(layout["after"]),
            self._offsets[key],
            tuple(layout["advance"]),
        )
