"""Thinning what was retrieved by the question, against its description written out in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkv.answer.thinning import Chosen, what_stays
from mmkv.engine.decode_buffers import LayerBuffer
from mmkv.kernels.common.naive import rotate

HEADS, GROUP, DIM = 2, 3, 16


def block(tokens: int, text: int) -> Any:
    """A block whose first tokens are text."""
    layout = SimpleNamespace(before=[0] * text, after=[])
    return SimpleNamespace(tokens=tokens, layout=layout)


def masses(query: Tensor, key: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Attention `[H_kv, m]` that keys get from a prompt that stands behind all but its own."""
    n, m = query.shape[1], key.shape[1]
    turned = rotate(query.double(), (turn[0].double(), turn[1].double()))
    scores = 0.3 * turned.unflatten(0, (HEADS, GROUP)) @ key.double()[:, None].transpose(2, 3)
    ahead = torch.arange(m) > m - n + torch.arange(n)[:, None]
    return scores.masked_fill(ahead, float("-inf")).softmax(-1).sum((1, 2))


@given(
    first=st.integers(0, 4),
    blocks=st.lists(st.tuples(st.integers(2, 9), st.integers(0, 1)), min_size=1, max_size=4),
    behind=st.integers(0, 6),
    n=st.integers(1, 7),
    keep=st.sampled_from([0.1, 0.5, 0.9]),
    part=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_what_the_prompt_attends_to_most_stays_with_text_and_all_else(
    first: int, blocks: list[tuple[int, int]], behind: int, n: int, keep: float, part: bool,
    seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    shown = [block(*pair) for pair in blocks]
    total = sum(tokens for tokens, _ in blocks)
    visual = np.concatenate([np.arange(tokens) >= text for tokens, text in blocks])
    left = None
    if part:  # every head lost a visual token of its own when it was archived
        spots = np.flatnonzero(visual)
        gone = [spots[seed % len(spots)], spots[-1]]
        rows = [np.delete(np.arange(total), spot) for spot in gone]
        left, total = torch.from_numpy(np.stack(rows)), total - 1
    length = first + total + behind + n
    key, value = torch.randn(2, 1, HEADS, length + 5, DIM)
    query = torch.randn(HEADS * GROUP, n, DIM)
    half = torch.rand(n, DIM // 2) * 6
    turn = torch.cat([half, half], 1).cos(), torch.cat([half, half], 1).sin()
    buffer = LayerBuffer(key.clone(), value.clone())
    chosen = Chosen(first, total, shown, left)
    picked = what_stays(buffer, length, query, turn, chosen, keep, 0.3)
    assert picked is not None
    end = first + picked.shape[1]
    buffer.pick(picked, first)
    mass = masses(query, key[0, :, :length], turn)
    for head in range(HEADS):
        own = torch.from_numpy(visual if left is None else visual[left[head].numpy()])
        count = min(int(own.sum()), max(len(blocks), int(keep * int(own.sum()) + 0.5)))
        worth = mass[head, first : first + total].masked_fill(~own, float("-inf"))
        stays = ~own
        stays[worth.topk(count).indices] = True
        kept = torch.ones(length, dtype=torch.bool)
        kept[first : first + total] = stays
        assert end == int(kept.sum())
        assert torch.equal(buffer.key[0, head, :end], key[0, head, :length][kept])
        assert torch.equal(buffer.value[0, head, :end], value[0, head, :length][kept])
