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
from mmkv.engine.carry import new_carry


def phases(states: Tensor, width: int) -> Tensor:
    """`[..., width]` as complex pairs `[..., width / 2]`."""
    half = width // 2
    return torch.complex(states[..., :half].double(), states[..., half:width].double())


def frequencies_of(adapter: Any, kind: str = "global") -> Tensor:
    """Inverse frequencies of a model's global, or local, layers."""
    rotary = adapter.language_model.rotary_emb
    layer = next(layer for layer in adapter.layers if layer.kind == kind)
    own = getattr(rotary, f"{layer.type}_inv_freq", None)
    return rotary.inv_freq if own is None else own


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
    last: Sequence[int] | None = None,
) -> Tensor:
    """Attention `[n, H, D]` of all tokens of a stream, queries and keys `[H, n, D]` before RoPE.

    last: for each token the last one that it sees; None: itself.
    """
    n, heads = query.shape[1], query.shape[0]
    group = heads // key.shape[0]
    key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0).double()
    width = 2 * frequencies.numel()
    turned_q, turned_k = phases(query, width), phases(key, width)
    out = torch.zeros(n, heads, query.shape[2], dtype=torch.float64)
    for i in range(n):
        end = i if last is None else last[i]
        near = [j for j in range(end + 1) if i - j < local]
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


def see_ahead(visual: Sequence[bool]) -> list[int]:
    """For each token the last of its frame; of text itself."""
    found = []
    for i in range(len(visual)):
        end = i
        while visual[i] and end + 1 < len(visual) and visual[end + 1]:
            end += 1
        found.append(end)
    return found


class SlowLocal:
    """The local layers of a forward over a whole stream, each within its own window."""

    def __init__(self, adapter: Any, positions: np.ndarray, visual: Sequence[bool]) -> None:
        self._adapter, self._positions = adapter, positions
        self._last = see_ahead(visual) if adapter.frames_see_ahead else None
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        self._kept[layer] = key[0], value[0]
        return self.again(layer, query, scaling)

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        frequencies = frequencies_of(self._adapter, "local")
        out = slow_attention(
            query[0],
            *self._kept[layer],
            self._positions,
            frequencies,
            self._adapter.frequency_axis(frequencies.numel()),
            local=self._adapter.layers[layer].window,
            sinks=0,
            advances=self._adapter.advances,
            scaling=scaling,
            last=self._last,
        )
        return out[None].to(query.dtype)


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
        self.kept.append((key[0].clone(), value[0].clone()))
        return self.again(layer, query, scaling)

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        frequencies = frequencies_of(self._adapter)
        out = slow_attention(
            query[0],
            *self.kept[layer],
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
    kinds = torch.cat([torch.zeros(len(prefix), dtype=torch.bool), *(b.visual for b in blocks)])
    local = SlowLocal(adapter, slow._positions, kinds.tolist())
    extras: dict[str, Any] = dict(adapter.token_inputs(token_ids(adapter, prefix, blocks)))
    if blocks[0].deepstack:
        levels = range(len(blocks[0].deepstack))
        extras["visual_pos_masks"] = kinds[None]
        extras["deepstack_visual_embeds"] = [
            torch.cat([b.deepstack[i] for b in blocks]) for i in levels
        ]
    embeds = torch.cat([adapter.embed_text(prefix), *(b.embeds for b in blocks)])
    with hooks.attached(adapter.language_model):
        hooks.run(adapter, slow, embeds, new_carry(adapter), local, **extras)
    kept = [torch.stack(pair)[:, :, len(prefix) :] for pair in slow.kept]
    return torch.stack(kept)


def token_ids(
    adapter: Any, prefix: Sequence[int], blocks: Sequence[Any], after: Sequence[int] = ()
) -> list[int]:
    """Token ids of a clip, visual tokens as those of the padding token."""
    ids = list(prefix)
    for block in blocks:
        visual = int(block.visual.sum())
        ids += [*block.layout.before, *[adapter.filler] * visual, *block.layout.after]
    return [*ids, *after]


def archived_kv(stream: mmkv.Stream) -> Tensor:
    """Keys before RoPE and values `[L, 2, H_kv, T, D]` that a stream archived."""
    return blocks_kv(stream, stream._state.archive.snapshot().blocks)


def blocks_kv(stream: mmkv.Stream, blocks: Sequence[CachedBlock]) -> Tensor:
    """The same of some blocks, as a question would load them."""
    past, cpu = stream._state.archive.snapshot(), torch.device("cpu")
    layers = range(stream._runtime.adapter.shape.layers)
    return torch.stack([past.load(layer, blocks, cpu) for layer in layers])
