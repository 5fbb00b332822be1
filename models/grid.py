"""The size of a stream's frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grid:
    """The size every frame of one stream is brought to, and the tokens it becomes.

    height, width: pixels after resizing. rows, cols: visual tokens per block after merging.
    source_height, source_width: pixels of the frame that fixed the grid.
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
