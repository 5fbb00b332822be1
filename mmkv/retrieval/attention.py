"""How much attention a block would get if the question could see the whole past at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkv.kernels.score import score
from mmkv.retrieval.base import Score, standard


class Attention(Score):
    """Attention of the words on the best summary of each block, distributed by one softmax.

    Every word and head distributes the same amount, so that a word that fits only one block counts
    for more than many that fit every block a little; in ReKV's mean query it is lost. Scores are
    standardised in each layer and summed over the layers so far: a block that an earlier layer
    found stays found, though the question's later states have moved on to what was read there. The
    first layer is left out of the sum, and sees the blocks' mean keys only: its queries are single
    words without context, which landmarks do not help.
    """

    name = "attention"

    def __init__(self) -> None:
        self._layers = 0
        self._sum: Tensor | None = None

    def rows(self, words: Tensor, parts: Sequence[Tensor], centre: Tensor) -> Tensor:
        if self._layers == 0:
            parts = [part[:, :1] for part in parts]
        return score(words, parts)  # [w * H, n]

    def combine(self, rows: Tensor) -> Tensor:
        own = standard(rows.softmax(dim=1).mean(dim=0))
        self._layers += 1
        if self._layers == 1:
            return own
        self._sum = own if self._sum is None else self._sum.to(own.device) + own
        return self._sum
