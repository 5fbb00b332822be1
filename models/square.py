"""What families share whose checkpoint fixes a square frame: its grid, and positions in a row."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from mmkv.models.grid import Grid


def side_of(size: Any) -> int:
    """Return the pixels of a side, which a configuration writes as one number or as two."""
    return int(size if isinstance(size, int) else size[0])


def square_grid(
    name: str, size: int, tokens: int, source: tuple[int, int], max_pixels: int | None
) -> Grid:
    """Return a checkpoint's square grid, whatever the frame's shape.

    Args:
        name: of the family, for the error.
        size: pixels of a side.
        tokens: visual tokens of a side.
        source: height and width of the stream's first frame, in pixels.
        max_pixels: most pixels of a resized frame, or None.

    Raises:
        ValueError: `max_pixels` is below the size that the checkpoint has fixed.
    """
    if max_pixels is not None and max_pixels < size * size:
        raise ValueError(
            f"max_pixels={max_pixels} is below the {size * size} pixels that every frame of this "
            f"{name} checkpoint has ({size}x{size}); leave max_pixels unset"
        )
    return Grid(size, size, tokens, tokens, *source)


@lru_cache(maxsize=64)
def in_a_row(tokens: int) -> np.ndarray:
    """Return positions int64 `[1, tokens]` of tokens that follow each other."""
    offsets = np.arange(tokens, dtype=np.int64)[None]
    offsets.setflags(write=False)  # every block of every stream shares it
    return offsets
