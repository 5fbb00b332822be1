"""A page's budget: how many visual tokens it keeps, and how many each of its blocks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def total_kept(keep_ratio: float, blocks: int, tokens: int) -> int:
    """Visual tokens per head that a page of `blocks` blocks of `tokens` each keeps.

    The ratio's share, rounded, and at least one of every block.
    """
    share = int(keep_ratio * blocks * tokens + 0.5)
    return min(blocks * tokens, max(blocks, share))


def allocate(scores: Tensor, total: int, *, across: bool) -> Tensor:
    """How many tokens each block keeps, int64 `[F]`, at least one each, `total` in all.

    Args:
        scores: `[H, F, T]`.
        total: tokens per head that the page keeps.
        across: divide them by where each head's `total` best tokens are, averaged over the heads;
            else equally.
    """
    heads, frames, _ = scores.shape
    if across:
        shares = _best(scores, total).sum(dim=(0, 2)).numpy()  # [F], of `heads * total`
    else:
        shares = np.full(frames, heads * total // frames)
    counts, rest = np.divmod(shares, heads)
    order = np.argsort(-rest, kind="stable")  # largest remainder first
    counts[order[: total - counts.sum()]] += 1
    return torch.from_numpy(counts)


def keep(scores: Tensor, counts: Tensor) -> Tensor:
    """Which tokens are kept, bool `[H, F, T]`: the `counts` best of each block.

    Of equal scores the earlier ones are kept.
    """
    order = scores.argsort(dim=2, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(2, order, torch.arange(scores.shape[2]).expand_as(order))
    return ranks < counts[:, None]


def _best(scores: Tensor, total: int) -> Tensor:
    """Each head's best of every block, and then its best of all, `total` tokens; bool."""
    frames = scores.shape[1]
    best = torch.zeros(scores.shape, dtype=torch.bool)
    best.scatter_(2, scores.argmax(dim=2, keepdim=True), True)
    rest = scores.masked_fill(best, -torch.inf).flatten(1)
    more = rest.topk(total - frames, dim=1).indices
    return best.flatten(1).scatter(1, more, True).view(scores.shape)
