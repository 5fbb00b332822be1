"""How well blocks match a question's words, in torch: the executable specification."""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_LOGITS = 1 << 24  # held at once


def score(words: Tensor, summaries: Tensor) -> Tensor:
    """Log-sum-exp of every word's products with each block's summaries.

    Args:
        words: float32 `[w, H, D]`, queries before RoPE. summaries: float32 `[n, m, H_kv, D]`.

    Returns:
        float32 `[n, w * H]`; for one summary a block these are the products themselves.
    """
    grouped = words.unflatten(1, (summaries.shape[2], -1))  # [w, H_kv, g, D]
    tile = max(1, _MAX_LOGITS // (summaries.shape[1] * words.shape[0] * words.shape[1]))
    rows = [
        torch.einsum("whgd,nmhd->nmwhg", grouped, part).flatten(2).logsumexp(dim=1)
        for part in summaries.split(tile)
    ]
    return torch.cat(rows)
