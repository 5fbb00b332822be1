"""The contract of an eviction policy: how much each visual token of a page is worth keeping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

ALL_TEXT = -1  # `observes`: every token of the text behind a chunk


@dataclass(frozen=True, slots=True)
class Frames:
    """The visual tokens of one page, as a policy sees them.

    Attributes:
        key: before RoPE, `[H, F, T, D]`; H are the key heads of one or several layers, layer by
            layer, F the page's blocks in time order, T the visual tokens of each.
        value: `[H, F, T, D]`.
        mass: float32 `[H, F, T]`, the attention that each token got; see `Eviction.observes`.
            None where nothing was observed.
        first: number of the page's first block in the stream.
    """

    key: Tensor
    value: Tensor
    mass: Tensor | None
    first: int


class Eviction(ABC):
    """Says which visual tokens of a page are kept. One policy, one file.

    The budget is the page's: `keep_ratio` of its visual tokens, at least one per block and head.
    How many of them a block keeps is the same for all heads and layers, which ones is not. Policies
    do not see text: all of it is kept.

    Attributes:
        name: what a configuration calls it.
        observes: the queries whose attention to a chunk's tokens is `Frames.mass`: 0 for none, a
            number n for the last n of the chunk and the text behind it, `ALL_TEXT` for that text's.
        across: whether scores of different blocks are comparable, so that a block with many high
            ones keeps more; else all blocks keep equally many.
        keyframe: whether a block's tokens only make sense beside those of the page's first block,
            which is then retrieved with it.
    """

    name: str
    observes: int = 0
    across: bool = True
    keyframe: bool = False

    @abstractmethod
    def scores(self, frames: Frames) -> Tensor:
        """How much each token is worth, `[H, F, T]`; the highest stay."""

    def __repr__(self) -> str:
        return f"<eviction {self.name}>"


def observed(frames: Frames) -> Tensor:
    """The mass, which a policy that asks for it always gets."""
    assert frames.mass is not None, "a policy that reads mass says so in `observes`"
    return frames.mass
