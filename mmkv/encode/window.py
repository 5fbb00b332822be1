"""The sliding window: per layer a ring of rotated keys and values, and the sinks.

Token i sees token j if 0 <= i - j < n_local, whatever the chunks it came in. A key is rotated
once, at its absolute position, and written once. The sinks (the prompt's opening tokens) are
ordinary tokens of the ring while they are in the window; after that, every query sees them at the
largest distance at which the window ever showed them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmkv.encode.summarizer import Summarizer
from mmkv.engine.carry import Carry
from mmkv.engine.rotary import Rotary
from mmkv.kernels.rotate_write import rotate_write
from mmkv.kernels.window_attention import Chunk, window_attention
from mmkv.models.layers import Shape


@dataclass(slots=True)
class LayerWindow:
    """One layer's ring and sinks.

    Attributes:
        key: rotated, `[1, H_kv, capacity, D]`.
        value: of the same shape.
        sink_key: the sinks' keys before RoPE, `[1, H_kv, s, D]`.
        far_key: the same, rotated for queries that have lost them.
        sink_value: the sinks' values.
    """

    key: Tensor
    value: Tensor
    sink_key: Tensor | None = None
    far_key: Tensor | None = None
    sink_value: Tensor | None = None


class Window:
    """All layers' rings of one stream.

    Args:
        shape: the language model's.
        rotary: the model's angles.
        devices: one per layer.
        dtype: of keys and values.
        local: tokens a query looks back.
        chunk: most tokens in one forward.
        advances: per axis, whether positions grow along it.
        carry: state before the first token of layers that have no keys and values; None: all have.

    Attributes:
        seen: tokens committed so far.
        sinks: how many of the first ones are sinks.
        far_distance: at which they are seen from outside the window, once that is known.
        carry: state after the last committed token; a pass that changes it works on a fork.
    """

    def __init__(
        self,
        shape: Shape,
        rotary: Rotary,
        devices: list[torch.device],
        dtype: torch.dtype,
        local: int,
        chunk: int,
        advances: tuple[bool, ...],
        carry: Carry | None = None,
    ) -> None:
        self.local = local
        self.chunk = chunk
        self.capacity = local + chunk
        self.seen = 0
        self.sinks = 0
        self.whole = 0  # from this token on the ring holds what was encoded
        self.rotary = rotary
        self.carry = carry
        self.advances = np.array(advances)[:, None]
        self.far_distance: int | None = None
        self.hole = 0  # a token before this one may be missing: a store lost it
        size = (1, shape.kv_heads, self.capacity, shape.head_dim)
        self.layers = [
            LayerWindow(
                torch.zeros(size, dtype=dtype, device=device),
                torch.zeros(size, dtype=dtype, device=device),
            )
            for device in devices
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of all rings and sinks."""
        total = 0
        for layer in self.layers:
            held = (layer.key, layer.value, layer.sink_key, layer.far_key, layer.sink_value)
            total += sum(t.nbytes for t in held if t is not None)
        return total

    @property
    def gapless(self) -> bool:
        """Whether the ring has every token that the next one will look back at."""
        return self.hole <= max(0, self.seen - self.local)

    def holds(self, start: int) -> bool:
        """Return whether all tokens from `start` on are in the ring as they were encoded."""
        return start >= max(self.seen - self.local, self.whole)

    def read(self, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Copy rotated keys and values `[1, H_kv, stop - start, D]` of a run of tokens."""
        ring, count, first = self.layers[layer], stop - start, start % self.capacity
        size = (1, ring.key.shape[1], count, ring.key.shape[3])
        key, value = ring.key.new_empty(size), ring.value.new_empty(size)
        end = min(first + count, self.capacity)
        for at, held in ((0, slice(first, end)), (end - first, slice(0, first + count - end))):
            rotate_write(ring.key[:, :, held], ring.value[:, :, held], None, key, value, at)
        return key, value

    def restore(
        self, layer: int, stop: int, key: Tensor, value: Tensor, positions: np.ndarray
    ) -> None:
        """Write the tokens before number `stop` back into a ring.

        Args:
            layer: the ring's.
            stop: number of the last of them, plus one.
            key: `[1, H_kv, n, D]`, before RoPE.
            value: `[1, H_kv, n, D]`.
            positions: int64 `[A, n]`.
        """
        ring = self.layers[layer]
        table = self.rotary(positions, ring.key.device, ring.key.dtype)
        first = stop - positions.shape[1]
        key = key.to(ring.key.dtype)
        rotate_write(key, value, table, ring.key, ring.value, first % self.capacity)

    def sink_positions(self) -> np.ndarray:
        """Return the sinks' positions `[A, s]` in the stream: text from zero on, on every axis."""
        return np.broadcast_to(np.arange(self.sinks), (len(self.advances), self.sinks))


def far_sinks(positions: np.ndarray, advances: np.ndarray) -> np.ndarray:
    """Return where the sinks stand for a query that has lost them: all at zero (as in InfLLM)."""
    return np.where(advances, 0, positions)


def far_queries(positions: np.ndarray, advances: np.ndarray, distance: int) -> np.ndarray:
    """Return where queries stand to see far sinks: at one distance, on the axes that advance."""
    return np.where(advances, positions - positions[0] + distance, positions)


class EncodePass:
    """A chunk through the language model, written into the window.

    Args:
        window: of the stream.
        positions: int64 `[A, n]` of the chunk's tokens.
        sinks: whether these are the stream's opening tokens.
        archive: host tensor `[L, 2, H_kv, n, D]` to fill with keys before RoPE and values, or None.
        summarize: what of each block's keys is kept for finding it, or None.
        stored: whether these summaries are also needed in host memory, to be stored.
        last: int64 `[n]`, the number in the chunk of the last token that each one sees in layers
            with a window of their own; None: its own.

    Attributes:
        carry: the window's state, forked; after the pass, that after the chunk.
        local: attention of the layers with a window of their own, which are part of that state.
    """

    def __init__(
        self,
        window: Window,
        positions: np.ndarray,
        *,
        sinks: bool = False,
        archive: Tensor | None = None,
        summarize: Summarizer | None = None,
        stored: bool = False,
        last: np.ndarray | None = None,
    ) -> None:
        self._window = window
        self._positions = positions
        self._sinks = sinks
        self._archive = archive
        self._summarize = summarize
        self._stored = stored
        self.summaries: list[Tensor] = []
        self.summaries_on_host: list[Tensor] = []  # where the others are not there anyway
        self.carry = None if window.carry is None else window.carry.fork()
        self.local = self.carry.local(window.rotary, positions, last) if self.carry else None
        self._start = window.seen
        self._n = positions.shape[1]
        edge = window.local - 1 - self._start
        if 0 <= edge < self._n:
            window.far_distance = int(positions[0, edge])
        self._devices: dict[torch.device, Chunk] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attend within the window, and copy what the archive and the index need."""
        window, ring = self._window, self._window.layers[layer]
        chunk = self._chunk(ring.key.device, ring.key.dtype)
        rotate_write(key, value, chunk.near, ring.key, ring.value, self._start % window.capacity)
        if self._sinks:
            ring.sink_key, ring.sink_value = key.clone(), torch.empty_like(value)
            ring.far_key = torch.empty_like(key)
            seen_from_afar = far_sinks(self._positions, window.advances)
            table = window.rotary(seen_from_afar, key.device, key.dtype)
            rotate_write(key, value, table, ring.far_key, ring.sink_value, 0)
        if self._archive is not None:
            self._archive[layer, 0].copy_(key[0], non_blocking=True)
            self._archive[layer, 1].copy_(value[0], non_blocking=True)
        if self._summarize is not None:
            self.summaries.append(self._summarize(key[0]))
            if self._stored and key.is_cuda:  # beside the keys, so that nothing waits for it later
                there = torch.empty(self.summaries[-1].shape, pin_memory=True)
                self.summaries_on_host.append(there.copy_(self.summaries[-1], non_blocking=True))
        return self.again(layer, query, scaling)

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attend within the window by a layer's queries of the chunk's last tokens."""
        ring = self._window.layers[layer]
        chunk = self._chunk(ring.key.device, ring.key.dtype).newest(query.shape[2])
        sinks = None
        if ring.far_key is not None and ring.sink_value is not None:
            sinks = (ring.far_key, ring.sink_value)
        return window_attention(query, ring.key, ring.value, chunk, sinks, scaling)

    @property
    def stop(self) -> int:
        """Number of the token after the chunk."""
        return self._start + self._n

    def commit(self) -> None:
        """Make the chunk part of the stream. Otherwise the next chunk takes its place."""
        self._window.seen += self._n
        self._window.carry = self.carry
        if self._sinks:
            self._window.sinks = self._n

    def _chunk(self, device: torch.device, dtype: torch.dtype) -> Chunk:
        if device not in self._devices:
            self._devices[device] = self._build(device, dtype)
        return self._devices[device]

    def _build(self, device: torch.device, dtype: torch.dtype) -> Chunk:
        window, start, n = self._window, self._start, self._n
        sinks = n if self._sinks else window.sinks
        far = None
        if sinks and start + n - 1 >= window.local:  # the last query has lost the first sink
            assert window.far_distance is not None
            far = window.rotary(
                far_queries(self._positions, window.advances, window.far_distance), device, dtype
            )
        near = window.rotary(self._positions, device, dtype)
        return Chunk(start, n, window.local, window.capacity, near, far, sinks)
