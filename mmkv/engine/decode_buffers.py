"""Memory in which one answer is generated, at addresses that stay the same, and a pool of it.

What changes from token to token (the token, its position, the slot for its key) is in tensors on
the devices, so that every step is the same work on the same memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from mmkv.engine.carry import Carry
from mmkv.engine.cuda_graph import Recorder, recorder_for, weight_places
from mmkv.engine.local import LocalStep
from mmkv.engine.rotary import Rotary
from mmkv.kernels.rotate_write import rotate_write, tokens_of
from mmkv.models.base import VideoModel
from mmkv.models.layers import Shape

_PIECE = 256  # tokens by which buffers on a GPU grow, so that the next answer fits them too
_IDLE = 1  # sets of buffers kept while no answer has them


@dataclass(slots=True)
class LayerBuffer:
    """Keys and values `[1, H_kv, capacity, D]` of an answer in one layer."""

    key: Tensor
    value: Tensor

    def pick(self, tokens: Tensor, first: int) -> None:
        """Move the tokens in these slots, int64 `[H_kv, n]`, to slots from `first` on."""
        key, value = tokens_of(self.key[0], self.value[0], tokens)[:, None]
        rotate_write(key, value, None, self.key, self.value, first)


@dataclass(slots=True)
class Clock:
    """Where the next token stands in the layers of one device.

    Attributes:
        index: int64 `[L]`, its slot in each layer's buffer.
        position: int64 `[A, L]`.
        cos: `[L, R]`, of its rotation, during a step; else None.
        sin: `[L, R]`, likewise.
    """

    index: Tensor
    position: Tensor
    cos: Tensor | None = None
    sin: Tensor | None = None


class DecodeBuffers:
    """Buffers of all layers, and where decoding stands.

    Args:
        shape: the language model's.
        axes: of a position.
        devices: one per layer.
        dtype: of keys and values.
        token_device: where tokens enter the model.

    Attributes:
        layers: the buffers; `reserve` makes room in them.
        token: int64 `[1]`, the next token.
        replay: the recorded step for these buffers as they are, or None (`cuda_graph.py`).
        recorded_for: what else that step was recorded with.
        weights: where the model's weights were when the buffers were made, if steps are recorded;
            see `weight_places`.
        lengths: tokens in each layer's buffer.
        carry: state of the layers that are not archived, after the newest token; None where the
            model has none.
        local: attention of the next token in layers with a window of their own; None likewise.
    """

    def __init__(
        self,
        shape: Shape,
        axes: int,
        devices: Sequence[torch.device],
        dtype: torch.dtype,
        token_device: torch.device,
    ) -> None:
        self._dtype = dtype
        self._axes = axes
        self.layers = []
        for device in devices:
            empty = torch.empty((1, shape.kv_heads, 0, shape.head_dim), dtype=dtype, device=device)
            self.layers.append(LayerBuffer(empty, empty))
        self.token = torch.zeros(1, dtype=torch.long, device=token_device)
        self.replay: Callable[[], Tensor] | None = None
        self.recorded_for: object = None
        self.weights: object = None
        self.lengths: list[int] = []
        self.carry: Carry | None = None
        self.local: LocalStep | None = None
        self._clocks: dict[torch.device, Clock] = {}
        self._rows: list[tuple[Clock, int, Tensor]] = []
        for device in devices:
            if device not in self._clocks:
                count = sum(other == device for other in devices)
                where = torch.zeros(1 + axes, count, dtype=torch.long, device=device)
                self._clocks[device] = Clock(where[0], where[1:])
            clock = self._clocks[device]
            row = sum(held is clock for held, _, _ in self._rows)
            self._rows.append((clock, row, clock.index[row]))

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        held = sum(layer.key.nbytes + layer.value.nbytes for layer in self.layers)
        return held + (0 if self.carry is None else self.carry.nbytes)

    def take(self, carry: Carry | None) -> None:
        """Begin from a state, which becomes the buffers' own; it must not be used any more."""
        if carry is None or (self.carry is not None and self.carry.load(carry)):
            return
        self.carry, self.local = carry, None
        if carry.windows:
            self.local = LocalStep(carry.windows, self._axes)
        self.replay = self.recorded_for = None

    def reserve(self, layer: int, tokens: int, keep: int = 0) -> LayerBuffer:
        """Return a layer's buffer with room for so many tokens; the first `keep` stay."""
        buffer = self.layers[layer]
        if tokens > buffer.key.shape[2]:
            self.replay = self.recorded_for = None
            if buffer.key.is_cuda:
                tokens = -(-tokens // _PIECE) * _PIECE
            size = (*buffer.key.shape[:2], tokens, buffer.key.shape[3])
            for name in ("key", "value"):
                more, held = buffer.key.new_zeros(size), getattr(buffer, name)
                more[:, :, :keep] = held[:, :, :keep]
                setattr(buffer, name, more)
        return buffer

    def begin(self, lengths: Sequence[int], positions: Sequence[np.ndarray]) -> None:
        """Set where each layer's next token stands: its slot, and its position `[A]`."""
        self.lengths = list(lengths)
        for device, clock in self._clocks.items():
            own = [i for i, (held, _, _) in enumerate(self._rows) if held is clock]
            clock.index.copy_(torch.tensor([lengths[i] for i in own], device=device))
            at = np.stack([positions[i] for i in own], axis=1)
            clock.position.copy_(torch.tensor(at, device=device))

    def make_room(self) -> None:
        """Make sure that every layer has room for one more token; a full one doubles."""
        for layer, length in enumerate(self.lengths):
            held = self.layers[layer].key.shape[2]
            if length >= held:
                self.reserve(layer, max(length + 1, 2 * held), keep=length)

    def tick(self, rotary: Rotary) -> None:
        """Compute the next token's rotations, of all layers at once."""
        for clock in self._clocks.values():
            clock.cos, clock.sin = rotary.at(clock.position, self._dtype)
        if self.local is not None:
            self.local.tick(rotary.local, self._dtype)

    def place(self, layer: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return a layer's next slot, a tensor without dimensions, and its rotation `[1, R]`."""
        clock, row, index = self._rows[layer]
        assert clock.cos is not None
        assert clock.sin is not None
        return index, (clock.cos[row : row + 1], clock.sin[row : row + 1])

    def advance(self) -> None:
        """Move on by one token, on the devices; `lengths` are counted separately."""
        for clock in self._clocks.values():
            clock.index += 1
            clock.position += 1
            clock.cos = clock.sin = None
        if self.local is not None:
            self.local.advance()

    @torch.inference_mode()
    def clear(self) -> None:
        """Erase what an answer left."""
        for layer in self.layers:
            layer.key.zero_()
            layer.value.zero_()
        if self.carry is not None:
            for state in self.carry.tensors():
                state.zero_()
        if self.recorded_for is not None:
            self.replay = self.recorded_for = None


class BufferPool:
    """Hands out decode buffers, each set to one answer at a time.

    Where steps are recorded, buffers that are given back are kept for the next answer, with their
    recording, unless the model's weights were replaced or moved meanwhile; elsewhere their
    memory is freed.

    Args:
        adapter: the model.
        devices: returns those of the layers, as they are now.
    """

    def __init__(self, adapter: VideoModel, devices: Callable[[], Sequence[torch.device]]) -> None:
        self._adapter = adapter
        self._where = devices
        self._idle: list[DecodeBuffers] = []
        self._all: WeakSet[DecodeBuffers] = WeakSet()
        self._lock = threading.Lock()
        self._devices = list(devices())
        self.recorder: Recorder | None = self._recorder()

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, those of answers under way too."""
        with self._lock:
            return sum(buffers.nbytes for buffers in self._all)

    def acquire(self) -> DecodeBuffers:
        """Hand out buffers that nobody else uses."""
        adapter = self._adapter
        with self._lock:
            devices = list(self._where())
            if devices != self._devices:
                self._devices = devices
                self.recorder = self._recorder()
            weights = None
            if self.recorder is not None:
                weights = weight_places(adapter.language_model, adapter.lm_head)
            self._idle = [buffers for buffers in self._idle if buffers.weights == weights]
            if self._idle:
                return self._idle.pop()
            buffers = DecodeBuffers(
                adapter.shape, adapter.axes, devices, adapter.dtype, adapter.device
            )
            buffers.weights = weights
            self._all.add(buffers)
            return buffers

    def release(self, buffers: DecodeBuffers) -> None:
        """Take buffers back; whoever had them must not use them any more."""
        if self.recorder is None:
            return
        buffers.clear()
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(buffers)

    def _recorder(self) -> Recorder | None:
        ends = {self._adapter.device, *(p.device for p in self._adapter.lm_head.parameters())}
        return recorder_for({*self._devices, *ends})
