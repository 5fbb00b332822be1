"""How well blocks match a question's words, in torch: the executable specification."""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_LOGITS = 1 << 18  # held at once: they stay in a core's cache


def score(words: Tensor, summaries: Tensor) -> Tensor:
    """Log-sum-exp of every word's products with each block's summaries.

    Args:
        words: float32 `[w, H, D]`, queries before RoPE. summaries: float32 `[n, m, H_kv, D]`.

    Returns:
        float32 `[n, w * H]`; for one summary a block these are the products themselves.
    """
    n, m, kv = summaries.shape[:3]
    keys = summaries.permute(2, 1, 3, 0).flatten(0, 1)  # [H_kv * m, D, n], a view of an index's
    queries = words.unflatten(1, (kv, -1)).permute(1, 0, 2, 3).flatten(1, 2)  # [H_kv, w * g, D]
    columns = queries.shape[1]
    queries = queries.repeat_interleave(m, dim=0)
    out = summaries.new_empty(words.shape[0], kv, words.shape[1] // kv, n)
    tile = max(1, _MAX_LOGITS // max(1, kv * m * columns))
    room = summaries.new_empty(kv * m * columns * min(n, tile))
    for start in range(0, n, tile):
        part = keys[:, :, start : start + tile]
        logits = room[: kv * m * columns * part.shape[2]].view(kv * m, columns, -1)
        torch.bmm(queries, part, out=logits)
        every = logits.view(kv, m, columns, -1)
        top = every.amax(dim=1)
        sums = every.sub_(top[:, None]).exp_().sum(dim=1).log_().add_(top)
        out[..., start : start + tile] = sums.unflatten(1, (words.shape[0], -1)).transpose(0, 1)
    return out.flatten(0, 2).t()
