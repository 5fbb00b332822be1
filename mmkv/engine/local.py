"""Attention of layers that look back over a window of their own.

Token i sees token j if 0 <= i - j < window, whatever the chunks it came in; tokens of one frame may
also see those after them. Only the newest `window` keys, rotated, and values of such a layer are
ever needed, so they are kept like a recurrent state: forked, never archived.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmkv.engine.rotary import Rotary
from mmkv.kernels.buffer_attention import buffer_attention
from mmkv.kernels.rotate_write import rotate_write
from mmkv.kernels.window_attention import Chunk, window_attention

Table = tuple[Tensor, Tensor]  # cosines and sines [n, R]


@dataclass(slots=True)
class LocalWindow:
    """The newest tokens of one layer, in the order of the stream.

    Attributes:
        key: rotated, `[1, H_kv, window, D]`; slots past the tokens seen so far are zeros.
        value: of the same shape.
        seen: int64 `[1]` on the CPU, tokens so far.
    """

    key: Tensor
    value: Tensor
    seen: Tensor

    @classmethod
    def empty(
        cls, kv_heads: int, window: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> LocalWindow:
        """Make the window before the first token."""
        size = (1, kv_heads, window, head_dim)
        key, value = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
        return cls(key, value, torch.zeros(1, dtype=torch.long))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tensors that it consists of."""
        return self.key, self.value, self.seen

    def fork(self) -> LocalWindow:
        """Return a copy that shares nothing with this one."""
        return LocalWindow(*(tensor.clone() for tensor in self.tensors()))

    @property
    def size(self) -> int:
        """How many tokens a token sees, itself included."""
        return self.key.shape[2]

    @property
    def held(self) -> int:
        """How many tokens are in it."""
        return min(int(self.seen), self.size)

    @property
    def before(self) -> int:
        """How many of these the next token sees."""
        return min(int(self.seen), self.size - 1)

    def followed(self, key: Tensor, value: Tensor, table: Table) -> tuple[Tensor, Tensor]:
        """Return what the next token sees, and these tokens, whose keys are rotated on the way."""
        held, before, count = self.held, self.before, key.shape[2]
        size = (1, self.key.shape[1], before + count, self.key.shape[3])
        all_keys, all_values = self.key.new_empty(size), self.value.new_empty(size)
        newest = slice(held - before, held)
        rotate_write(
            self.key[:, :, newest], self.value[:, :, newest], None, all_keys, all_values, 0
        )
        rotate_write(key, value, table, all_keys, all_values, before)
        return all_keys, all_values

    def keep(self, key: Tensor, value: Tensor, new: int) -> None:
        """Keep the newest of these tokens, the last `new` of which are new; memory stays."""
        kept = min(self.size, key.shape[2])
        self.key[:, :, :kept] = key[:, :, -kept:]
        self.value[:, :, :kept] = value[:, :, -kept:]
        self.seen += new


class LocalPass:
    """A run of tokens through all local layers, whose windows then end with it.

    Args:
        windows: by number of layer; changed in place.
        rotary: the local layers' angles.
        positions: int64 `[A, n]` of the tokens.
        last: int64 `[n]`, the number in this run of the last token that each one sees; None: its
            own.
        owners: numbers of layers whose keys and values other layers read.
    """

    def __init__(
        self,
        windows: Mapping[int, LocalWindow],
        rotary: Rotary,
        positions: np.ndarray,
        last: np.ndarray | None = None,
        owners: Collection[int] = (),
    ) -> None:
        self._windows = windows
        self._rotary = rotary
        self._positions = positions
        self._last = last
        self._owners = owners
        self._tables: dict[torch.device, Table] = {}
        self._chunks: dict[tuple[torch.device, int, int], Chunk] = {}
        self._shown: dict[int, tuple[Tensor, Tensor, Chunk]] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attend within the layer's window, and move that on; see `passes.Shared`."""
        window = self._windows[layer]
        chunk = self._chunk(window)
        shown = window.followed(key, value, chunk.near)
        window.keep(*shown, key.shape[2])
        if layer in self._owners:
            self._shown[layer] = (*shown, chunk)
        return window_attention(query, *shown, chunk, None, scaling)

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attend to what a layer saw, by queries of the last tokens; see `passes.Shared`."""
        key, value, chunk = self._shown[layer]
        return window_attention(query, key, value, chunk.newest(query.shape[2]), None, scaling)

    def _chunk(self, window: LocalWindow) -> Chunk:
        device, before = window.key.device, window.before
        if device not in self._tables:
            self._tables[device] = self._rotary(self._positions, device, window.key.dtype)
        name = (device, before, window.size)
        if name not in self._chunks:
            n, last = self._positions.shape[1], None
            if self._last is not None:
                last = torch.tensor(self._last + before, device=device)
            self._chunks[name] = Chunk(
                before, n, window.size, before + n, self._tables[device], last=last
            )
        return self._chunks[name]


@dataclass(slots=True)
class LocalClock:
    """Where the next token stands in the windows of one size on one device.

    Attributes:
        count: int64 without dimensions, tokens before it that were written since the slots began.
        position: int64 `[A, 1]`.
        slot: int64 without dimensions, where it is written, during a step.
        last: the last slot that it sees, likewise.
        table: its rotation `[1, R]`, likewise.
    """

    count: Tensor
    position: Tensor
    slot: Tensor | None = None
    last: Tensor | None = None
    table: Table | None = None


class LocalStep:
    """An answer's next token in all local layers: every step is the same work on the same memory.

    It takes the place of the oldest token of a window, so the order of the stream is lost; keys
    are rotated, so attention does not depend on it.

    Args:
        windows: by number of layer; the answer's own.
        axes: of a position.
    """

    def __init__(self, windows: Mapping[int, LocalWindow], axes: int) -> None:
        self._windows = windows
        self.clocks: dict[tuple[torch.device, int], LocalClock] = {}
        for window in windows.values():
            device = window.key.device
            count = torch.zeros((), dtype=torch.long, device=device)
            position = torch.zeros(axes, 1, dtype=torch.long, device=device)
            self.clocks.setdefault((device, window.size), LocalClock(count, position))

    def begin(self, position: np.ndarray) -> None:
        """Set where the next token stands, `[A]`: behind those that the windows hold, in order."""
        for window in {w.size: w for w in self._windows.values()}.values():
            for (_, size), clock in self.clocks.items():
                if size == window.size:
                    clock.count.fill_(window.held)
                    clock.position.copy_(torch.tensor(position)[:, None])

    def tick(self, rotary: Rotary, dtype: torch.dtype) -> None:
        """Compute the next token's rotation and slots.

        Args:
            rotary: the local layers' angles.
            dtype: of keys and values.
        """
        for (_, size), clock in self.clocks.items():
            clock.table = rotary.at(clock.position, dtype)
            clock.slot, clock.last = clock.count % size, clock.count.clamp(max=size - 1)

    def advance(self) -> None:
        """Move on by one token, on the devices."""
        for clock in self.clocks.values():
            clock.count += 1
            clock.position += 1
            clock.slot = clock.last = clock.table = None

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Write the token into the layer's window and attend to that; see `passes.Shared`."""
        window = self._windows[layer]
        clock = self._clock(window)
        assert clock.slot is not None
        rotate_write(key, value, clock.table, window.key, window.value, clock.slot)
        return self.again(layer, query, scaling)

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Attend to the window of a layer that has the token; see `passes.Shared`."""
        window = self._windows[layer]
        clock = self._clock(window)
        return buffer_attention(query, window.key, window.value, clock.last, scaling, clock.table)

    def _clock(self, window: LocalWindow) -> LocalClock:
        return self.clocks[window.key.device, window.size]
