"""Attention over different tokens joined by the log-sum-exp of their scores."""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST = -1e30  # for minus infinity, where one is taken from another


def join(near: Tensor, near_lse: Tensor, far: Tensor, far_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Two attentions over different tokens as one; out `[1, H, n, D]`, log-sum-exp `[1, H, n]`."""
    lse = torch.logaddexp(near_lse, far_lse)
    least = lse.clamp_min(LOWEST)
    near = near.float() * (near_lse - least).exp()[..., None]
    return near + far.float() * (far_lse - least).exp()[..., None], lse
