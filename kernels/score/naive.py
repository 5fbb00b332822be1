"""How well blocks match a question's words, in torch: the executable specification."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_LOGITS = 1 << 18  # held at once: they stay in a core's cache
_LANES = 16  # a product of 16 columns takes half the time of one of 10


def score(words: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Log-sum-exp of every word's products with each block's summaries.

    Args:
        words: float32 `[w, H, D]`, queries before RoPE. parts: summaries float32
            `[n_i, m, H_kv, D]` of consecutive blocks.

    Returns:
        float32 `[w * H, n]`; for one summary a block these are the products themselves.
    """
    m, kv = parts[0].shape[1:3]
    queries = words.unflatten(1, (kv, -1)).permute(1, 3, 0, 2).flatten(2)  # [H_kv, D, w * g]
    rows = queries.shape[2]
    queries = F.pad(queries * math.log2(math.e), (0, -rows % _LANES)).repeat_interleave(m, dim=0)
    columns = queries.shape[2]
    tile = max(1, _MAX_LOGITS // max(1, kv * m * columns))
    tiles = [tile_ for part in parts for tile_ in part.split(tile)]
    out = words.new_empty(words.shape[0], kv, words.shape[1] // kv, sum(map(len, tiles)))
    room = words.new_empty(kv * m * columns * max(map(len, tiles)))
    start = 0
    for summaries in tiles:
        n = len(summaries)
        logits = room[: kv * m * n * columns].view(kv * m, n, columns)
        torch.bmm(summaries.permute(2, 1, 0, 3).flatten(0, 1), queries, out=logits)
        every = logits.view(kv, m, n, columns)
        top = every.amax(dim=1)
        sums = every.sub_(top[:, None]).exp2_().sum(dim=1).log2_().add_(top)[..., :rows]
        sums = sums.unflatten(2, (words.shape[0], -1)).permute(2, 0, 3, 1)  # [w, H_kv, g, n]
        torch.mul(sums, math.log(2), out=out[..., start : start + n])
        start += n
    return out.flatten(0, 2)
