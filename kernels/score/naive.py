"""How well blocks match a question's words, in torch: the executable specification."""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_LOGITS = 1 << 19  # held at once


def score(words: Tensor, summaries: Tensor) -> Tensor:
    """Log-sum-exp of every word's products with each block's summaries.

    Args:
        words: float32 `[w, H, D]`, queries before RoPE. summaries: float32 `[n, m, H_kv, D]`.

    Returns:
        float32 `[n, w * H]`; for one summary a block these are the products themselves.
    """
    n, m, kv = summaries.shape[:3]
    # a key head's queries side by side, [H_kv, D, w * g]
    queries = words.unflatten(1, (kv, -1)).permute(1, 3, 0, 2).flatten(2)
    columns = queries.shape[2]
    out = summaries.new_empty(n, words.shape[0], kv, words.shape[1] // kv)
    tile = max(1, _MAX_LOGITS // (m * kv * columns))
    for start in range(0, n, tile):
        part = summaries[start : start + tile]
        logits = part.new_empty(kv, m, len(part), columns)
        for head in range(kv):
            for i in range(m):
                torch.mm(part[:, i, head], queries[head], out=logits[head, i])
        top = logits.amax(dim=1)
        sums = logits.sub_(top[:, None]).exp_().sum(dim=1).log_().add_(top)  # [H_kv, n, w * g]
        out[start : start + tile] = sums.unflatten(2, (words.shape[0], -1)).permute(1, 2, 0, 3)
    return out.flatten(1)
