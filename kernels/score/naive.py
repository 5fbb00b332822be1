"""How well blocks match a question's words, in torch: the executable specification."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_LOGITS = 1 << 18  # held at once: they stay in a core's cache
_LANES = 16  # a product of 16 columns takes half the time of one of 10


def score(words: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """The best of every word's products with each block's summaries.

    Args:
        words: float32 `[w, H, D]`, queries before RoPE.
        parts: summaries `[n_i, m, H_kv, D]` of consecutive blocks, in half precision or that of
            the words.

    Returns:
        float32 `[w * H, n]`.
    """
    m, kv = parts[0].shape[1:3]
    count, heads, dim = words.shape
    queries = words.unflatten(1, (kv, -1)).permute(1, 3, 0, 2).flatten(2)  # [H_kv, D, w * g]
    rows = queries.shape[2]
    queries = F.pad(queries, (0, -rows % _LANES)).repeat(m, 1, 1)
    columns = queries.shape[2]
    most = max(1, _MAX_LOGITS // max(1, kv * m * columns))
    tiles = [tile for part in parts for tile in part.split(most)]
    out = words.new_empty(count, kv, heads // kv, sum(map(len, tiles)))
    longest = max(map(len, tiles))
    logits = words.new_empty(kv * m * columns * longest)
    keys = words.new_empty(kv * m * dim * longest)
    start = 0
    for tile in tiles:
        n = len(tile)
        key = keys[: tile.numel()].view(m, kv, n, dim).copy_(tile.permute(1, 2, 0, 3))
        every = logits[: m * kv * n * columns].view(m, kv, n, columns)
        torch.bmm(key.flatten(0, 1), queries, out=every.flatten(0, 1))
        best = every.amax(dim=0)[..., :rows].unflatten(2, (count, -1))  # [H_kv, n, w, g]
        out[..., start : start + n] = best.permute(2, 0, 3, 1)
        start += n
    return out.flatten(0, 2)
