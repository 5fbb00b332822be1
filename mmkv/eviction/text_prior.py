"""LOOK-M's text prior (arXiv 2406.18139): what text looks at stays, and text itself always does."""

from __future__ import annotations

from torch import Tensor

from mmkv.eviction.base import ALL_TEXT, Eviction, Frames, observed


class TextPrior(Eviction):
    """Attention that a token gets from the text behind its chunk, as a share of its block's.

    A live stream has no question when it encodes: the text is that of the chat template and
    `focus`.
    """

    name = "text-prior"
    observes: int = ALL_TEXT

    def scores(self, frames: Frames) -> Tensor:
        mass = observed(frames)
        return mass / mass.sum(dim=2, keepdim=True).clamp_min(1e-30)
