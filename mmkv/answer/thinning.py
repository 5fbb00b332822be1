"""Thinning what was retrieved, by the question's attention, before the answer is generated.

The prompt has seen all of it; of the retrieved frames' visual tokens, the answer's tokens then
attend only to those that the prompt attended to most, per layer and head (LOOK-M, arXiv
2406.18139). Text, opening tokens and recent frames stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkv.archive.blocks import CachedBlock
from mmkv.archive.thinning import is_visual
from mmkv.engine.decode_buffers import LayerBuffer
from mmkv.kernels.attention_mass import attention_mass


@dataclass(frozen=True, slots=True)
class Chosen:
    """Retrieved tokens in a layer's buffer.

    Attributes:
        first: slot where they begin.
        count: how many per head.
        blocks: whose they are.
        left: which tokens of these blocks, int64 `[H_kv, n]`; None: all.
    """

    first: int
    count: int
    blocks: Sequence[CachedBlock]
    left: Tensor | None


def what_stays(
    buffer: LayerBuffer,
    length: int,
    query: Tensor,
    rotation: tuple[Tensor, Tensor],
    chosen: Chosen,
    keep: float,
    scaling: float,
) -> Tensor | None:
    """Choose among the retrieved tokens by how much a prompt attended to them.

    Args:
        buffer: sinks, retrieved, recent and prompt.
        length: tokens in it.
        query: the prompt's, before RoPE, `[H, n, D]`.
        rotation: cosines and sines `[n, R]`.
        chosen: the retrieved tokens.
        keep: share of the retrieved visual tokens that stay, at least one for every block.
        scaling: of the logits.

    Returns:
        the slots from the first retrieved token on whose tokens stay, in order, int64 `[H_kv, n]`;
        None for all.
    """
    if not chosen.count:
        return None
    before, key = length - query.shape[1], buffer.key[0, :, :length]
    mass = attention_mass(query, key, scaling, before, rotation)
    mass = mass[:, chosen.first : chosen.first + chosen.count].clone()  # [H_kv, n]
    visual = torch.from_numpy(is_visual(chosen.blocks)).to(mass.device)
    visual = visual.expand_as(mass) if chosen.left is None else visual[chosen.left]
    seen = int(visual[0].sum())  # equally many in every head
    stay = min(seen, max(len(chosen.blocks), int(keep * seen + 0.5))) + chosen.count - seen
    best = mass.masked_fill(~visual, torch.inf).topk(stay, dim=1).indices.sort(dim=1).values
    tail = torch.arange(chosen.first + chosen.count, length, device=best.device)
    return torch.cat([best + chosen.first, tail.expand(len(best), -1)], dim=1)
