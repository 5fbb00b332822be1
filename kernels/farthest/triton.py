"""Farthest point sampling on a GPU: one launch for all choices, a program per set of points.

The products of a set's points are a batched matrix product, torch's; in torch the choices would be
some launches for every point.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def farthest(points: Tensor) -> Tensor:
    """As `naive.farthest`."""
    sets, count, _ = points.shape
    products = points @ points.transpose(1, 2)
    out = torch.empty(sets, count, device=points.device)
    block = triton.next_power_of_2(count)
    _farthest[(sets,)](products, out, count, BLOCK=block, num_warps=1 if block <= 256 else 4)
    return out


@triton.jit
def _farthest(products, out, count, BLOCK: tl.constexpr):
    products += tl.program_id(0).to(tl.int64) * count * count
    place = tl.arange(0, BLOCK)
    there = place < count
    norm = tl.load(products + place * (count + 1), mask=there, other=0.0)
    left = tl.where(there, norm, float("-inf"))
    scores = tl.zeros([BLOCK], tl.float32)
    for _ in range(count):
        far = tl.max(left, 0)
        # no point is the farthest among NaNs, and padding never is
        chosen = tl.minimum(tl.min(tl.where(left == far, place, BLOCK), 0), count - 1)
        here = place == chosen
        scores = tl.where(here, tl.maximum(far, 0.0), scores)
        own = tl.sum(tl.where(here, norm, 0.0), 0)
        product = tl.load(products + chosen * count + place, mask=there, other=0.0)
        left = tl.where(here, float("-inf"), tl.minimum(left, norm + own - 2 * product))
    scores = tl.where(norm == norm, scores, norm)
    tl.store(out + tl.program_id(0).to(tl.int64) * count + place, scores, mask=there)
