"""How many bytes packed codes take: the arithmetic of `kernels/pack/form.py`, without torch."""

from __future__ import annotations

from dataclasses import dataclass

WIDE_LEVELS = 4
BITS = {2: 1, 4: 2, 16: 4}


@dataclass(frozen=True, slots=True)
class Levels:
    """How many levels the channels of a head are coded with.

    Attributes:
        levels: of the narrow channels: 2, 3, 4 or 16.
        wide: how many channels of a head are wide.
    """

    levels: int
    wide: int = 0

    def plane_bytes(self, heads: int, tokens: int, head_dim: int) -> tuple[int, int]:
        """Bytes of a block's wide and narrow plane."""
        rows = heads * tokens
        return (
            _plane(rows, self.wide, WIDE_LEVELS),
            _plane(rows, head_dim - self.wide, self.levels),
        )

    def row_bytes(self, heads: int, head_dim: int) -> tuple[int, int, int]:
        """Bytes of what a group of tokens shares: largest scales, bits of wide channels, words.

        Exact centres, four bytes for each channel that needs one, come on top.
        """
        return 4 * heads, heads * head_dim // 8 if self.wide else 0, 2 * heads * head_dim


def _plane(rows: int, width: int, levels: int) -> int:
    return -(-rows * width // 5) if levels == 3 else rows * (width * BITS[levels] // 8)
