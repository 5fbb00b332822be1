"""Thinning a page when it is closed: score, keep, merge. Only the archived copy is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmkv.archive.blocks import CachedBlock
from mmkv.eviction.base import Eviction, Frames
from mmkv.eviction.budget import allocate, keep, total_kept
from mmkv.kernels.rotate_write import tokens_of
from mmkv.merging.base import Merge
from mmkv.merging.none import NoMerge
from mmkv.models.block import Layout


@dataclass(frozen=True, slots=True)
class Thinned:
    """What is left of a page.

    Attributes:
        states: keys before RoPE and values, `[l, 2, H_kv, K, D]` of the l layers on each device.
        lengths: tokens of each block that are left, the same in every layer and head.
        kept: which of the page's tokens these are, bool `[L, H_kv, T]`.
        keyframe: the block of the page, counted from its first, that the others are retrieved with.
    """

    states: list[Tensor]
    lengths: tuple[int, ...]
    kept: np.ndarray
    keyframe: int | None


class Thinning:
    """How the archived copy is thinned.

    Args:
        policy: what is kept.
        merge: what becomes of the rest.
        keep_ratio: share of a page's visual tokens that is kept, above 0 and below 1.
    """

    def __init__(self, policy: Eviction, merge: Merge, keep_ratio: float) -> None:
        self.policy, self.merge, self.keep_ratio = policy, merge, keep_ratio

    def tokens_left(self, blocks: Sequence[CachedBlock]) -> int:
        """Tokens per head that these blocks will keep as a page, text included."""
        visual = [visual_tokens(block.layout) for block in blocks]
        text = sum(block.tokens for block in blocks) - sum(visual)
        return text + total_kept(self.keep_ratio, len(blocks), max(visual, default=0))

    def thin(self, blocks: Sequence[CachedBlock], states: Sequence[Tensor]) -> Thinned | None:
        """What is left of a page; None where nothing can be evicted.

        Args:
            states: keys before RoPE and values of the page's blocks, `[l, 2, H_kv, T, D]` of the l
                layers on each device, in the layers' order.

        Raises:
            ValueError: a policy of the user's does not score every token with a number, or keys or
                values are not finite.
        """
        counts = {visual_tokens(block.layout) for block in blocks}
        tokens = max(counts)
        total = total_kept(self.keep_ratio, len(blocks), tokens)
        if len(counts) > 1 or total == len(blocks) * tokens:
            return None
        _, _, heads, length, _ = states[0].shape
        visual = torch.from_numpy(_visual(blocks))  # int64 [F * T]
        cuts = np.cumsum([0, *map(len, states)]) * heads  # rows of each device
        scores = torch.cat(
            [
                self._scores(blocks, group, int(row), visual)
                for group, row in zip(states, cuts, strict=False)
            ]
        )
        per_block = allocate(scores, total, across=self.policy.across)
        kept = keep(scores, per_block).flatten(1)  # [L * H_kv, F * T]
        every = torch.ones((len(kept), length), dtype=torch.bool)
        every[:, visual] = kept
        left = [
            self._fold(group, visual, kept[first:stop], every[first:stop])
            for group, first, stop in zip(states, cuts[:-1], cuts[1:], strict=True)
        ]
        text = [block.tokens - tokens for block in blocks]
        return Thinned(
            left,
            tuple(a + b for a, b in zip(per_block.tolist(), text, strict=True)),
            every.view(-1, heads, length).numpy(),
            0 if self.policy.keyframe else None,
        )

    def _scores(
        self,
        blocks: Sequence[CachedBlock],
        group: Tensor,
        row: int,
        visual: Tensor,
    ) -> Tensor:
        """The policy's scores of some layers, float32 `[l * H_kv, F, T]` on the CPU."""
        key, value = _heads(group)
        frames = (len(blocks), -1)
        device = key.device
        where = visual.to(device)
        mass = None
        if all(block.mass is not None for block in blocks):
            whole = torch.cat([b.mass for b in blocks if b.mass is not None], dim=2)
            rows = whole.flatten(0, 1)[row : row + len(key)]
            mass = rows[:, visual].unflatten(1, frames).to(device)
        if len(visual) < key.shape[1]:
            key, value = key[:, where], value[:, where]
        page = Frames(
            key.unflatten(1, frames),
            value.unflatten(1, frames),
            mass,
            blocks[0].index,
        )
        scores = self.policy.scores(page)
        if scores.shape != page.key.shape[:3]:
            raise ValueError(
                f"eviction={self.policy.name!r} gives scores {list(scores.shape)}; it must give "
                f"one for every token, {list(page.key.shape[:3])}"
            )
        if not torch.isfinite(scores).all():
            if not torch.isfinite(group).all():
                raise ValueError(
                    "keys or values of a frame are NaN or infinite; load the model in a wider "
                    "dtype (bfloat16 or float32)"
                )
            raise ValueError(
                f"eviction={self.policy.name!r} gives scores that are NaN or infinite; they must "
                "be finite"
            )
        return scores.float().cpu()

    def _fold(self, group: Tensor, visual: Tensor, kept: Tensor, every: Tensor) -> Tensor:
        """Keys and values `[l, 2, H_kv, K, D]` of some layers."""
        key, value = _heads(group)
        device = key.device
        places, merging = _places(every), self.merge.name != NoMerge.name
        text = len(visual) < key.shape[1]
        if text or not merging:
            left = tokens_of(key, value, places.to(device))  # [2, l * H_kv, K, D]
        if merging:
            chosen, gone = _places(kept).to(device), _places(~kept).to(device)
            if text:
                key, value = key[:, visual.to(device)], value[:, visual.to(device)]
            folded = torch.stack(self.merge.fold(key, value, chosen, gone))
            if text:  # at the same places in every head: equally many of each block are kept
                left[:, :, torch.isin(places[0], visual).to(device)] = folded
            else:
                left = folded
        return left.unflatten(1, (len(group), -1)).transpose(0, 1)


def visual_tokens(layout: Layout) -> int:
    """Visual tokens of a block."""
    return int(layout.offsets.shape[1]) - len(layout.before) - len(layout.after)


def is_visual(blocks: Sequence[CachedBlock]) -> np.ndarray:
    """Which of these blocks' tokens are visual, bool `[T]`."""
    parts = []
    for block in blocks:
        part = np.zeros(block.tokens, dtype=bool)
        part[len(block.layout.before) : block.tokens - len(block.layout.after)] = True
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def _visual(blocks: Sequence[CachedBlock]) -> np.ndarray:
    return np.flatnonzero(is_visual(blocks))


def _heads(group: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values `[l * H_kv, T, D]` of layers `[l, 2, H_kv, T, D]`."""
    key, value = group.unbind(1)
    return key.flatten(0, 1), value.flatten(0, 1)


def _places(mask: Tensor) -> Tensor:
    """Places int64 `[H, k]` of what is set in bool `[H, n]`, equally many in every row."""
    return mask.nonzero()[:, 1].view(len(mask), -1)
