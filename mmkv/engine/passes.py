"""What computes the attention of an engine forward, layer by layer."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from mmkv.models.base import VideoModel


class Pass(Protocol):
    """One engine forward. No tuple, list or mapping and no `.to`: accelerate would copy it."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Compute the attention of one layer.

        Args:
            layer: its ordinal among the global layers.
            query: `[1, H, n, D]`, before RoPE.
            key: `[1, H_kv, n, D]`, before RoPE.
            value: `[1, H_kv, n, D]`.
            scaling: of the logits.

        Returns:
            `[1, n, H, D]`.
        """


class Shared(Pass, Protocol):
    """A pass of a model some of whose layers read another layer's keys and values."""

    def again(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Compute the attention of other queries over what this forward's `attend` saw.

        Args:
            layer: as that call was given.
            query: `[1, H, n, D]` of the forward's last n tokens, before RoPE.
            scaling: of the logits.

        Returns:
            `[1, n, H, D]`.
        """


class ByLayer:
    """Calls the pass of each layer: the engine's by ordinals, the local one by numbers.

    Args:
        adapter: the model.
        engine_pass: of the global layers.
        local: of the local layers, None where there are none.
    """

    def __init__(self, adapter: VideoModel, engine_pass: Pass, local: Shared | None) -> None:
        self._layers = adapter.layers
        self._owners: dict[int, torch.device] = {}  # where those are that others read
        self._ordinals = adapter.ordinals
        self._pass = engine_pass
        self._local = local

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Compute the attention of one layer, by its number in the decoder; see `Pass`."""
        reuses = self._layers[layer].kind == "reuse"
        owner = self._layers[layer].owner if reuses else layer
        target: Any = self._local
        if owner in self._ordinals:
            target, owner = self._pass, self._ordinals[owner]
        out: Tensor
        if reuses:  # the owner may be on another device
            there = self._owners[self._layers[layer].owner]
            out = target.again(owner, query.to(there), scaling).to(query.device)
        else:
            self._owners[layer] = key.device
            out = target.attend(owner, query, key, value, scaling)
        return out
