"""One question through the language model: retrieve, layer by layer, then decode.

At each layer the question's own words choose blocks, these are loaded and rotated next to the
recent ones, and the prompt attends. From then on the layer's keys are in one contiguous buffer, to
which the generated tokens are added (`engine/decode_step.py`); the ring is not read again.
"""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
from torch import Tensor

from mmkv.answer.context import Context, block_positions
from mmkv.answer.past import Past, Table
from mmkv.answer.retriever import LayerChoice, Retriever
from mmkv.answer.thinning import Chosen, what_stays
from mmkv.archive import CachedBlock
from mmkv.engine.decode_buffers import DecodeBuffers
from mmkv.engine.rotary import Rotary
from mmkv.kernels.rotate_write import rotate_write

_ROOM = 512  # tokens that a buffer is made for before it grows


class RetrievalPass:
    """State of one answer.

    Args:
        context: what may be seen.
        rotary: the model's angles.
        words: bool `[n]`, the prompt tokens that choose.
        retriever: chooses the blocks.
        past: how they are reached.
        room: most tokens that will be generated.
        buffers: the memory that is this answer's until it ends.

    Attributes:
        choices: what each layer chose so far.
        timings: seconds spent so far per stage.
    """

    def __init__(
        self,
        context: Context,
        rotary: Rotary,
        words: Tensor,
        retriever: Retriever,
        past: Past,
        room: int,
        buffers: DecodeBuffers,
    ) -> None:
        self.buffers = buffers
        self._context = context
        self._rotary = rotary
        self._words = words
        self._retriever = retriever
        self._room = min(room, _ROOM)
        self._past = past
        self._chosen: list[Chosen] = []
        self._next: list[tuple[int, np.ndarray]] = []  # per layer: slot, position after the prompt
        self._left: dict[int, Tensor] = {}  # per layer: slots that stay when the prompt is done
        self._asked_at: tuple[int, Table] | None = None  # the prompt in the newest layer
        self._prompt = 0  # its tokens
        self._tables: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self.choices: list[LayerChoice] = []
        self.timings = {"score": 0.0, "load": 0.0, "unpack": 0.0}

    @property
    def foreseen(self) -> float | None:
        """Share of a layer's blocks that the layer before it had chosen as well.

        These were read ahead. None where nothing could be.
        """
        pairs = [(set(a.chosen), b.chosen) for a, b in pairwise(self.choices)]
        count = sum(len(after) for _, after in pairs)
        return sum(i in before for before, after in pairs for i in after) / count if count else None

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' buffers."""
        return self.buffers.nbytes

    @property
    def before(self) -> list[int]:
        """Tokens before the prompt's that answer tokens see, per layer."""
        return [at - self._prompt for at, _ in self._next]

    @property
    def outside(self) -> object:
        """What a generated token reads besides the buffers; None for nothing."""
        return self._past.outside

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attend as the prompt in a layer's first call, as a generated token in later ones."""
        at: int | Tensor
        if layer == len(self._next):
            self._prompt = n = query.shape[2]
            at, start = self._gather(layer, query, key, scaling)
            table = self._table(("text", *start), start[:, None] + np.arange(n), query)
            self._next.append((at + n, start + n))
            self._asked_at = (at, table)
        else:
            at, table = self.buffers.place(layer)
        buffer = self.buffers.layers[layer]
        rotate_write(key, value, table, buffer.key, buffer.value, at)
        out = self._past.attend(layer, query, buffer, at, table, scaling)
        if isinstance(at, int) and self._past.keep < 1:
            (length, position), chosen = self._next[layer], self._chosen[layer]
            left = what_stays(buffer, length, query[0], table, chosen, self._past.keep, scaling)
            if left is not None:
                self._left[layer] = left
                self._next[layer] = (chosen.first + left.shape[1], position)
        return out

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attend by the queries of a layer that reads this layer's buffer."""
        at, table = self._asked_at or self.buffers.place(layer)
        return self._past.attend(layer, query, self.buffers.layers[layer], at, table, scaling)

    def begin_decode(self) -> None:
        """Thin the buffers, which the whole prompt has seen, and set where the first token goes."""
        for layer, left in self._left.items():
            self.buffers.layers[layer].pick(left, self._chosen[layer].first)
        self._left.clear()
        self._asked_at = None
        self.buffers.begin([at for at, _ in self._next], [position for _, position in self._next])
        if self.buffers.local is not None:
            self.buffers.local.begin(after_newest(self._context) + self._prompt)
        self._tables.clear()

    def _gather(
        self, layer: int, query: Tensor, key: Tensor, scaling: float
    ) -> tuple[int, np.ndarray]:
        """Choose blocks, and copy what the prompt sees into the buffer.

        Returns:
            how many tokens that is; the position `[A]` of the prompt's first token.
        """
        context = self._context
        started, unpacked = time.perf_counter(), self.timings["unpack"]
        choice, blocks = self._retriever.choose(layer, self._asked(query, scaling))
        self.choices.append(choice)
        scored = time.perf_counter()
        blocks = context.past.with_keyframes(self._past.loaded(blocks), context.candidates)
        origins, base, start = place(context, blocks)
        sink_key, sink_value = context.sinks[layer]
        recent_key, recent_value = context.recent_kv[layer]
        first = sink_key.shape[2]
        last = first + context.past.tokens(blocks)
        length = last + recent_key.shape[2]
        buffer = self.buffers.reserve(layer, length + query.shape[2] + self._room)
        if first:
            table = self._table(("sinks", *base), np.arange(first) + base[:, None], key)
            rotate_write(sink_key, sink_value, table, buffer.key, buffer.value, 0)
        if blocks:
            name = ("chosen", *(block.index for block in blocks))
            table = self._table(name, block_positions(blocks, origins), key)
            own = (buffer.key[0, :, first:last], buffer.value[0, :, first:last])
            left = context.past.fill(layer, blocks, *own, table, self.timings)
            if layer + 1 < len(context.recent_kv):  # what the next layer is likely to need too
                context.past.prefetch(layer + 1, blocks)
        self._chosen.append(Chosen(first, last - first, blocks, left if blocks else None))
        rotate_write(recent_key, recent_value, None, buffer.key, buffer.value, last)
        unpacking = self.timings["unpack"] - unpacked
        self.timings["score"] += scored - started
        self.timings["load"] += time.perf_counter() - scored - unpacking
        return length, start

    def _asked(self, query: Tensor, scaling: float) -> Tensor:
        """Return the words' queries `[w, H, D]`, scaled."""
        return query[0][:, self._words.to(query.device)].float().transpose(0, 1) * scaling

    def _table(
        self, name: tuple[object, ...], positions: np.ndarray, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        key = (*name, like.device)
        if key not in self._tables:
            self._tables[key] = self._rotary(positions, like.device, like.dtype)
        return self._tables[key]


def after_newest(context: Context) -> np.ndarray:
    """Return the position `[A]` right after the newest block that a question sees."""
    return place(context, [])[2]


def place(
    context: Context, blocks: list[CachedBlock]
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
