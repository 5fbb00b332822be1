"""The state of a stream's layers that are not archived, which every token changes.

It cannot be taken back, only copied: whatever may not become part of a stream runs on a fork.
transformers' own cache layers hold the state of recurrent and convolution layers; layers of
attention pass through them, since their keys and values are the engine's. Layers that look back
over a window of their own keep that window (`local.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmkv.engine.devices import layer_device
from mmkv.engine.local import LocalPass, LocalWindow
from mmkv.engine.rotary import Rotary
from mmkv.models.base import VideoModel


class Carry:
    """State of all `carry` and `local` layers after some token.

    Args:
        adapter: the model.

    Attributes:
        cache: what the language model is called with; it is changed in place. None where there are
            no `carry` layers.
        windows: of the `local` layers, by their numbers; changed in place too.
        owners: numbers of layers whose keys and values others read.
    """

    def __init__(self, adapter: VideoModel) -> None:
        layers = adapter.layers
        carries = [layer.kind == "carry" for layer in layers]
        self.cache = _new_cache(carries) if any(carries) else None
        self.owners = frozenset(layer.owner for layer in layers if layer.kind == "reuse")
        self.windows = {
            index: LocalWindow.empty(
                layer.kv_heads,
                layer.window,
                layer.head_dim,
                adapter.dtype,
                layer_device(adapter, index),
            )
            for index, layer in enumerate(layers)
            if layer.kind == "local"
        }

    @property
    def nbytes(self) -> int:
        """Bytes of the state; those of `carry` layers are 0 before the first token."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Return the state's tensors, always in the same order.

        `carry` layers have none before the first token; `local` layers always have theirs.
        """
        cached = [] if self.cache is None else self.cache.layers
        found = [tensor for layer in cached for tensor in _tensors(layer)]
        for window in self.windows.values():
            found += window.tensors()
        return found

    def fork(self) -> Carry:
        """Return a copy that shares nothing with this one."""
        fork = copy.copy(self)
        fork.windows = {index: window.fork() for index, window in self.windows.items()}
        if self.cache is not None:
            fork.cache = copy.copy(self.cache)
            fork.cache.layers = [_copied(layer) for layer in self.cache.layers]
        return fork

    def local(
        self, rotary: Rotary, positions: np.ndarray, last: np.ndarray | None = None
    ) -> LocalPass | None:
        """Make the pass that brings local layers up to the end of a run of tokens.

        Args:
            rotary: the model's angles.
            positions: int64 `[A, n]` of the tokens.
            last: see `LocalPass`.

        Returns:
            the pass; None where there are no local layers.
        """
        if not self.windows:
            return None
        return LocalPass(self.windows, rotary.local, positions, last, self.owners)

    def load(self, other: Carry) -> bool:
        """Copy another state into this one's memory.

        Returns:
            whether it fits; if not, nothing has changed.
        """
        mine, others = self.tensors(), other.tensors()
        if [(t.shape, t.dtype) for t in mine] != [(t.shape, t.dtype) for t in others]:
            return False
        for into, tensor in zip(mine, others, strict=True):
            into.copy_(tensor)
        return True

    def with_tensors(self, tensors: Sequence[Tensor]) -> Carry:
        """Return a fork that holds these tensors, in the order of `tensors`, on the same devices.

        Raises:
            ValueError: their number, shapes or types are not this state's.
        """
        own = self.tensors()
        if [(t.shape, t.dtype) for t in own] != [(t.shape, t.dtype) for t in tensors]:
            raise ValueError(
                f"a state of {len(tensors)} tensors does not fit this model, whose state has "
                f"{len(own)}; it was made by another model"
            )
        fork = self.fork()
        for into, tensor in zip(fork.tensors(), tensors, strict=True):
            into.copy_(tensor)
        return fork


def new_carry(adapter: VideoModel) -> Carry | None:
    """Make the state before the first token; None where every layer is archived or has none."""
    return Carry(adapter) if adapter.carries else None


def _new_cache(carries: Sequence[bool]) -> Any:
    from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer

    class PassThrough(DynamicLayer):
        """Keeps nothing, and hands on what it is given."""

        def update(
            self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            return key_states, value_states

    return Cache(layers=[LinearAttentionLayer() if carry else PassThrough() for carry in carries])


def _tensors(layer: Any) -> Iterator[Tensor]:
    for _, value in sorted(vars(layer).items()):
        held = value.values() if isinstance(value, dict) else [value]
        yield from (one for one in held if isinstance(one, Tensor))


def _copied(layer: Any) -> Any:
    """Copy a cache layer and its tensors; versions of transformers differ in where these are."""
    other = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            setattr(
                other,
                name,
                {k: v.clone() if isinstance(v, Tensor) else v for k, v in value.items()},
            )
        elif isinstance(value, Tensor):
            setattr(other, name, value.clone())
    return other
