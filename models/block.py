"""What a frame, or a pair of frames, becomes: tokens, their positions and embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """The tokens of one block: text before, the visual grid, text after, and their positions.

    Attributes:
        before: token ids of the text before the visual tokens.
        after: token ids of the text after them.
        offsets: int64 `[A, T]`, positions of the block's tokens relative to its origin.
        advance: `A` ints, the ordinary step from this block's origin to the next one's.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    offsets: np.ndarray
    advance: tuple[int, ...]

    @property
    def visual(self) -> np.ndarray:
        """Which tokens are visual, bool `[T]`."""
        found = np.ones(self.offsets.shape[1], dtype=bool)
        found[: len(self.before)] = False
        found[len(found) - len(self.after) :] = False
        return found


@dataclass(slots=True)
class Block:
    """One temporal patch as the language model sees it; `T` tokens, `A` position axes.

    Attributes:
        embeds: input embeddings `[T, D]`.
        visual: bool `[T]` on the CPU, which tokens are visual.
        layout: its tokens and their positions.
        seconds: presentation times of its first and last frame.
        frames: how many real frames it shows.
        deepstack: features for the early layers, `[T_visual, D]` each.
        sides: bytes to keep beside it, by name.
        salience: float32 `[T]` on the CPU, how much each token matters; None where not judged.
    """

    embeds: Tensor
    visual: Tensor
    layout: Layout
    seconds: tuple[float, float]
    frames: int
    deepstack: tuple[Tensor, ...] = field(default=())
    sides: dict[str, bytes] = field(default_factory=dict)
    salience: Tensor | None = None

    def __len__(self) -> int:
        return int(self.embeds.shape[0])
