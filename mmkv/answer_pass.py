"""One question through the language model: retrieve, layer by layer, then decode.

At each layer the question's own words choose blocks, these are loaded and rotated next to the
recent ones, and the prompt attends. The layer's keys then live in one contiguous buffer that the
generated tokens extend; the ring is not read again.
"""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmkv.archive import ArchivedBlock
from mmkv.buffer import LayerBuffer
from mmkv.context import Context, block_positions, rows_of
from mmkv.eviction.asked import Chosen, thin_buffer
from mmkv.models.base import VideoModel
from mmkv.models.prompt import Prompt
from mmkv.retrieval.retriever import LayerChoice, Retriever
from mmkv.rotary import Rotary, rotate

_ROOM = 512  # tokens that a buffer is made for before it grows


class AnswerPass:
    """State of one answer.

    Args:
        context: what may be seen. words: bool `[n]`, the prompt tokens that choose.
        retriever: chooses the blocks. room: most tokens that will be generated.
        keep: share of the retrieved visual tokens that the answer is generated from, those that
            the prompt attends to most; the prompt itself sees all of them.
    """

    def __init__(
        self,
        context: Context,
        rotary: Rotary,
        words: Tensor,
        retriever: Retriever,
        room: int,
        keep: float = 1.0,
    ) -> None:
        self._context = context
        self._rotary = rotary
        self._words = words
        self._retriever = retriever
        self._room = min(room, _ROOM)
        self._keep = keep
        self._chosen: list[Chosen] = []
        self._buffers: list[LayerBuffer] = []
        self._tables: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self.choices: list[LayerChoice] = []
        self.timings = {"score": 0.0, "load": 0.0, "unpack": 0.0}

    @property
    def foreseen(self) -> float | None:
        """Share of the blocks that a layer chose which the layer before it had chosen as well,
        and so were read ahead; None where nothing could be.
        """
        pairs = [(set(a.chosen), b.chosen) for a, b in pairwise(self.choices)]
        count = sum(len(after) for _, after in pairs)
        return sum(i in before for before, after in pairs for i in after) / count if count else None

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' buffers."""
        return sum(b.key.nbytes + b.value.nbytes for b in self._buffers)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        n = query.shape[2]
        if layer == len(self._buffers):
            self._buffers.append(self._gather(layer, query, key, scaling))
            mask = self._causal(n, self._buffers[layer].length, query.device)
        else:
            mask = None
        buffer = self._buffers[layer]
        table = self._text_table(buffer, n, query)
        query, key = rotate(query, table), rotate(key, table)
        buffer.extend(key, value)
        out = F.scaled_dot_product_attention(
            query,
            buffer.key[:, :, : buffer.length],
            buffer.value[:, :, : buffer.length],
            attn_mask=mask,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        if mask is not None and self._keep < 1:
            thin_buffer(buffer, query[0], self._chosen[layer], self._keep, scaling)
        return out.transpose(1, 2)

    def _gather(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> LayerBuffer:
        context = self._context
        started, unpacked = time.perf_counter(), self.timings["unpack"]
        choice, blocks = self._retriever.choose(layer, self._asked(query, scaling))
        self.choices.append(choice)
        scored = time.perf_counter()
        blocks = context.past.with_keyframes(blocks, context.candidates)
        origins, base, start = place(context, blocks)
        sink_key, sink_value = context.sinks[layer]
        recent_key, recent_value = context.recent_kv[layer]
        parts_k, parts_v = [], []
        if sink_key.shape[2]:
            at = np.arange(sink_key.shape[2]) + base[:, None]
            parts_k.append(rotate(sink_key, self._table(("sinks", *base), at, key)))
            parts_v.append(sink_value)
        if blocks:
            kv, left = context.past.read(layer, blocks, key.device, self.timings)
            if layer + 1 < len(context.recent_kv):  # what the next layer is likely to need too
                context.past.prefetch(layer + 1, blocks)
            name = ("chosen", *(block.index for block in blocks))
            table = self._table(name, block_positions(blocks, origins), key)
            parts_k.append(rotate(kv[None, 0], rows_of(table, left)))
            if self._keep < 1:
                self._chosen.append(Chosen(sink_key.shape[2], kv.shape[2], blocks, left))
            parts_v.append(kv[None, 1])
        elif self._keep < 1:
            self._chosen.append(Chosen(sink_key.shape[2], 0, [], None))
        parts_k.append(recent_key)
        parts_v.append(recent_value)
        length = sum(p.shape[2] for p in parts_k)
        capacity = length + query.shape[2] + self._room
        shape = (1, key.shape[1], capacity, key.shape[3])
        buffer = LayerBuffer(key.new_zeros(shape), key.new_zeros(shape), length, length, start)
        torch.cat(parts_k, dim=2, out=buffer.key[:, :, :length])
        torch.cat(parts_v, dim=2, out=buffer.value[:, :, :length])
        unpacking = self.timings["unpack"] - unpacked
        self.timings["score"] += scored - started
        self.timings["load"] += time.perf_counter() - scored - unpacking
        return buffer

    def _asked(self, query: Tensor, scaling: float) -> Tensor:
        """The words' queries `[w, H, D]`, scaled."""
        return query[0][:, self._words.to(query.device)].float().transpose(0, 1) * scaling

    def _text_table(self, buffer: LayerBuffer, n: int, like: Tensor) -> tuple[Tensor, Tensor]:
        first = buffer.length - buffer.prompt
        at = buffer.start[:, None] + np.arange(first, first + n)
        return self._table(("text", first, n, *buffer.start), at, like)

    def _table(
        self, name: tuple[object, ...], positions: np.ndarray, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        key = (*name, like.device)
        if key not in self._tables:
            if len(self._tables) > 64:
                self._tables.clear()  # tables of past steps
            self._tables[key] = self._rotary(positions, like.device, like.dtype)
        return self._tables[key]

    def _causal(self, n: int, before: int, device: torch.device) -> Tensor:
        mask = torch.ones(n, before + n, dtype=torch.bool, device=device)
        return mask.tril(diagonal=before)


def prompt_input(adapter: VideoModel, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Input embeddings `[n, D]` of what follows the last frame, and which tokens, bool `[n]`,
    are the question's words.
    """
    lead, embeds = adapter.prompt_lead(), adapter.embed_text(prompt.ids)
    words = torch.tensor(prompt.words)
    if lead is not None:
        embeds = torch.cat([lead, embeds])
        words = torch.cat([torch.zeros(len(lead), dtype=torch.bool), words])
    return embeds, words if words.any() else torch.ones_like(words)


def place(
    context: Context, blocks: list[ArchivedBlock]
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Number sinks, chosen blocks, recent blocks and prompt as one clip, in the ring's coordinates.

    Runs of neighbouring blocks keep their inner spacing and are joined by one ordinary step;
    everything is shifted so that the recent blocks stand where the ring has them.

    Returns:
        origins `[A]` of the chosen blocks; the shift `[A]` of the clip's zero, where the sinks
        start; the position `[A]` of the prompt's first token.
    """
    following = context.recent[0] if context.recent else None
    origins: list[np.ndarray] = []
    at = context.anchor
    after = following
    for block in reversed(blocks):
        next_to = after is not None and after.index == block.index + 1
        step = after.origin - block.origin if next_to and after else block.layout.advance
        at = at - np.asarray(step)
        origins.append(at)
        after = block
    origins.reverse()
    sinks = context.sinks[0][0].shape[2]
    base = (origins[0] if origins else context.anchor) - sinks
    every = [*blocks, *context.recent]
    places = [*origins, *(b.origin for b in context.recent)]
    ends = [o - base + b.layout.offsets.max(axis=1) for o, b in zip(places, every, strict=True)]
    last = int(np.max(ends)) if ends else sinks - 1
    return origins, base, base + last + 1
