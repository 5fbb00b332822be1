"""Window attention written a second time, from its description: slow, in float64, all at once.

Token i sees token j if 0 <= i - j < local, at their true distance. A sink that is further back is
seen at one fixed distance: that of the first sink and the last token that still has it in its
window. Along axes on which blocks do not follow each other distances stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mmkv
from mmkv.archive import CachedBlock
from mmkv.engine import hooks


def phases(states: Tensor, width: int) -> Tensor:
    """`[..., width]` as complex pairs `[..., width / 2]`."""
    half = width // 2
    return torch.complex(states[..., :half].double(), states[..., half:width].double())


def slow_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: np.ndarray,
    frequencies: Tensor,
    axis: Tensor,
    *,
    local: int,
    sinks: int,
    advances: tuple[bool, ...],
    scaling: float,
) -> Tensor:
    """Attention `[n, H, D]` of all tokens of a stream, queries and keys `[H, n, D]` before RoPE."""
    n, heads = query.shape[1], query.shape[0]
    group = heads // key.shape[0]
    key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0).double()
    width = 2 * frequencies.numel()
    turned_q, turned_k = phases(query, width), phases(key, width)
    out = torch.zeros(n, heads, query.shape[2], dtype=torch.float64)
    for i in range(n):
        near = [j for j in range(n) if 0 <= i - j < local]
        far = [j for j in range(sinks) if i - j >= local]
        rows = []
        for j in far + near:
            distance = positions[:, i] - positions[:, j]
            if j in far:
                fixed = positions[0, local - 1] + positions[:, i] - positions[0, i]
                distance = np.where(advances, fixed, distance)
            angle = torch.tensor(distance)[axis].double() * frequencies.double()
            pair = turned_q[:, i] * turned_k[:, j].conj() * torch.polar(angle * 0 + 1, angle)
            rest = (query[:, i, width:].double() * key[:, j, width:].double()).sum(-1)
            rows.append((pair.real.sum(-1) + rest) * scaling)
        weights = torch.stack(rows, dim=1).softmax(dim=1)  # [H, seen]
        out[i] = torch.einsum("hj,hjd->hd", weights, value[:, far + near])
    return out


class SlowPass:
    """A whole stream as one forward through the slow attention."""

    def __init__(self, stream: mmkv.Stream, positions: np.ndarray) -> None:
        self._adapter: Any = stream._runtime.adapter
        self._window: Any = stream._state.window
        self._positions = positions
        self.kept: list[tuple[Tensor, Tensor]] = []  # per layer [H_kv, n, D]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        frequencies = self._adapter.language_model.rotary_emb.inv_freq
        self.kept.append((key[0].clone(), value[0].clone()))
        out = slow_attention(
            query[0],
            key[0],
            value[0],
            self._positions,
            frequencies,
            self._adapter.frequency_axis(frequencies.numel()),
            local=self._window.local,
            sinks=self._window.sinks,
            advances=self._adapter.advances,
            scaling=scaling,
        )
        return out[None].to(query.dtype)


@torch.inference_mode()
def slow_stream(stream: mmkv.Stream, frames: Tensor, times: list[float]) -> Tensor:
    """Keys before RoPE and values `[L, 2, H_kv, T, D]` of a stream's blocks, all in one forward."""
    adapter, state = stream._runtime.adapter, stream._state
    prefix = state.frame_encoder.prefix
    blocks = adapter.blocks(list(frames), times, state.grid)
    archived = state.archive.snapshot().blocks
    opening = np.broadcast_to(np.arange(len(prefix)), (adapter.axes, len(prefix)))
    places = [b.layout.offsets + b.origin[:, None] for b in archived]
    slow = SlowPass(stream, np.concatenate([opening, *places], axis=1))
    extras: dict[str, Any] = {}
    if blocks[0].deepstack:
        kinds = [torch.zeros(len(prefix), dtype=torch.bool), *(b.visual for b in blocks)]
        levels = range(len(blocks[0].deepstack))
        extras["visual_pos_masks"] = torch.cat(kinds)[None]
        extras["deepstack_visual_embeds"] = [
            torch.cat([b.deepstack[i] for b in blocks]) for i in levels
        ]
    embeds = torch.cat([adapter.embed_text(prefix), *(b.embeds for b in blocks)])
    with hooks.attached(adapter.language_model):
        hooks.run(adapter, slow, embeds, **extras)
    kept = [torch.stack(pair)[:, :, len(prefix) :] for pair in slow.kept]
    return torch.stack(kept)


def archived_kv(stream: mmkv.Stream) -> Tensor:
    """Keys before RoPE and values `[L, 2, H_kv, T, D]` that a stream archived."""
    return blocks_kv(stream, stream._state.archive.snapshot().blocks)


def blocks_kv(stream: mmkv.Stream, blocks: Sequence[CachedBlock]) -> Tensor:
    """The same of some blocks, as a question would load them."""
    past, cpu = stream._state.archive.snapshot(), torch.device("cpu")
    layers = range(stream._runtime.adapter.shape.layers)
    return torch.stack([past.load(layer, blocks, cpu) for layer in layers])
