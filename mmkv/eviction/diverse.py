"""Tokens unlike each other: every evicted one has a kept one near it.

Farthest point sampling, as DivPrune (arXiv 2503.02175) chooses visual tokens by max-min distance;
here over a page, so that what several frames show alike is kept once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.eviction.base import Eviction, Frames


class Diverse(Eviction):
    """Starts with each block's token farthest from the page's mean, then always takes the token
    farthest from all that are taken, per head, by keys and values together.
    """

    name = "diverse"

    def scores(self, frames: Frames) -> Tensor:
        return farthest_first(points(frames), frames.budget)


def points(frames: Frames) -> Tensor:
    """Keys and values side by side, float32 `[H, F, T, 2 D]`: every channel's mean over the page
    taken off, then keys and values each of mean square 1, so that neither outweighs the other.
    """
    parts = []
    for states in (frames.key.float(), frames.value.float()):
        apart = states - states.mean(dim=(1, 2), keepdim=True)
        size = apart.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        parts.append(apart / size.clamp_min(1e-30))
    return torch.cat(parts, dim=3)


def farthest_first(points: Tensor, count: int) -> Tensor:
    """Scores `[H, F, T]` of points `[H, F, T, C]` by the order in which they are taken, `count` in
    all: the first has 2, the last a little more than 1. What is left has 0.5 at most, more where it
    is farther from all that are taken.
    """
    heads, frames, tokens, _ = points.shape
    flat = points.flatten(1, 2)  # [H, N, C]
    norms = flat.square().sum(dim=2)
    apart = norms[:, :, None] + norms[:, None] - 2 * flat @ flat.transpose(1, 2)  # [H, N, N]
    head = torch.arange(heads, device=flat.device)
    begin = norms.unflatten(1, (frames, tokens)).argmax(dim=2)  # [H, F]
    begin = begin + tokens * torch.arange(frames, device=flat.device)
    begin = begin.gather(1, norms.gather(1, begin).argsort(dim=1, descending=True))
    least = apart.gather(1, begin[..., None].expand(-1, -1, apart.shape[2])).amin(dim=1)
    least.scatter_(1, begin, -torch.inf)
    taken = [begin]
    for _ in range(count - frames):
        place = least.argmax(dim=1)
        torch.minimum(least, apart[head, place], out=least)
        least[head, place] = -torch.inf
        taken.append(place[:, None])
    ranks = 2 - torch.arange(count, device=flat.device) / count
    rest = least.clamp_min(0) / least.amax(dim=1, keepdim=True).clamp_min(1e-30) / 2
    scores = rest.scatter(1, torch.cat(taken, dim=1), ranks.expand(heads, -1).to(rest))
    return scores.view(heads, frames, tokens)
