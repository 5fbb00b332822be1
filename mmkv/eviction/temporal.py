"""What has not changed since the page's first block is evicted first; only then what is new."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkv.eviction.base import Eviction, Frames

_SAME = 0.25  # change below which a token counts as the same as the keyframe's


class Temporal(Eviction):
    """Evicts tokens first whose keys and values hardly differ from the keyframe's at their place.

    Such redundant tokens go before any other, the most redundant first. The keyframe, the page's
    first block, is never redundant, and comes along when one of the others is retrieved.

    Args:
        then: how tokens that are not redundant rank among each other; None: by their change.
    """

    name = "temporal"
    keyframe: bool = True

    def __init__(self, then: Eviction | None = None) -> None:
        self._then = then
        if then is not None:
            self.name = f"{type(self).name}+{then.name}"
            self.observes = then.observes

    def scores(self, frames: Frames) -> Tensor:
        moved = change(frames)
        rank = moved if self._then is None else self._then.scores(frames).to(moved)
        unique = moved >= _SAME
        unique[:, 0] = True
        # ranks of unique tokens begin above every redundant one's
        low = rank.amin(dim=(1, 2), keepdim=True)
        span = (rank.amax(dim=(1, 2), keepdim=True) - low).clamp_min(1e-12)
        return torch.where(unique, 1 + (rank - low) / span, moved / _SAME - 1)


def change(frames: Frames) -> Tensor:
    """How far a token is from the keyframe's at its place, float32 `[H, F, T]`.

    The mean over keys and values of their squared distance, each relative to the average between
    two tokens of the page: 0 is the same, 1 as far as any two.
    """
    far = []
    for states in (frames.key.float(), frames.value.float()):
        distance = (states - states[:, :1]).square().sum(dim=3)
        spread = 2 * states.flatten(1, 2).var(dim=1, correction=0).sum(dim=1)  # [H]
        far.append(distance / spread.clamp_min(1e-12)[:, None, None])
    moved = (far[0] + far[1]) / 2
    # the keyframe itself: as new as its tokens are unlike the page's mean
    moved[:, 0] = unlike_mean(frames)[:, 0]
    return moved


def unlike_mean(frames: Frames) -> Tensor:
    """How far a token's key and value are from the page's means, on the scale of `change`."""
    far = []
    for states in (frames.key.float(), frames.value.float()):
        apart = (states - states.mean(dim=(1, 2), keepdim=True)).square().sum(dim=3)
        far.append(apart / apart.mean(dim=(1, 2), keepdim=True).clamp_min(1e-12))
    return (far[0] + far[1]) / 2
