"""The state of a stream's recurrent and convolution layers, which every token changes.

It cannot be taken back, only copied: whatever may not become part of a stream runs on a fork.
transformers' own cache layers hold it; layers of attention pass through, since their keys and
values are the engine's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from mmkv.models.layers import Layer


class Carry:
    """State of all `carry` layers after some token.

    Args:
        layers: the decoder's.

    Attributes:
        cache: what the language model is called with; it is changed in place.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.cache = _new_cache([layer.kind == "carry" for layer in layers])

    @property
    def nbytes(self) -> int:
        """Bytes of the state; 0 before the first token."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Return the state's tensors, always in the same order; none before the first token."""
        return [tensor for layer in self.cache.layers for tensor in _tensors(layer)]

    def fork(self) -> Carry:
        """Return a copy that shares nothing with this one."""
        fork = copy.copy(self)
        fork.cache = copy.copy(self.cache)
        fork.cache.layers = [_copied(layer) for layer in self.cache.layers]
        return fork

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


def new_carry(layers: Sequence[Layer]) -> Carry | None:
    """Make the state before the first token; None where every layer has keys and values."""
    return Carry(layers) if any(layer.kind == "carry" for layer in layers) else None


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
