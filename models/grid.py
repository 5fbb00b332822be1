"""The size of a stream's frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grid:
    """The size that every frame of one stream is resized to, and the tokens it becomes.

    Attributes:
        height: pixels after resizing.
        width: the same across.
        rows: visual tokens per block after merging, down.
        cols: the same across.
        source_height: pixels of the frame that fixed the grid.
        source_width: the same across.
    """

    height: int
    width: int
    rows: int
    cols: int
    source_height: int
    source_width: int

    @property
    def tokens(self) -> int:
        """Visual tokens per block."""
        return self.rows * self.cols
