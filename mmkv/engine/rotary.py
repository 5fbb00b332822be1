"""Rotary angles computed by the engine, exact at any position.

Stock code computes angles in float32: off by 0.06 rad at position 1 M. Here they are float64
products with the model's own inverse frequencies; only their cosines and sines are rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkv.models.base import VideoModel

_REWRITES_FREQUENCIES = ("dynamic", "longrope")


class Rotary:
    """Angles of one model: positions `[A, n]` to cosines and sines `[n, R]`.

    Args:
        adapter: the model.
        layer_type: transformers' name of the layers whose angles these are, where types of layers
            have their own; None: the global layers.

    Attributes:
        local: angles of the layers with a window of their own; these, where all have the same.

    Raises:
        ValueError: the model's RoPE changes its frequencies with the length of the sequence.
    """

    def __init__(self, adapter: VideoModel, layer_type: str | None = None) -> None:
        module: Any = adapter.language_model.rotary_emb
        if layer_type is None:
            layer_type = adapter.layers[adapter.global_layers[0]].type
        kind = getattr(module, "rope_type", "default")
        if isinstance(kind, dict):
            kind = kind.get(layer_type, "default")
        if kind in _REWRITES_FREQUENCIES:
            raise ValueError(
                f"rope_type={kind!r} changes its frequencies as the sequence grows, so keys cannot "
                "be kept; use a checkpoint with a fixed RoPE (default, linear, yarn, llama3)"
            )
        # a fresh module: loading in half precision may have rounded the buffer
        fresh = type(module)(config=module.config)
        self._frequencies: Tensor = inverse_frequencies(fresh, layer_type).double().cpu()
        own = f"{layer_type}_attention_scaling"
        self._scaling = float(getattr(fresh, own, getattr(fresh, "attention_scaling", 1.0)))
        self._axis = adapter.frequency_axis(self._frequencies.numel())
        self._devices: dict[torch.device, tuple[Tensor, Tensor]] = {}
        local = next((layer.type for layer in adapter.layers if layer.kind == "local"), layer_type)
        self.local: Rotary = self if local == layer_type else Rotary(adapter, local)

    def __call__(
        self, positions: np.ndarray, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each `[n, R]`, of int64 positions `[A, n]`."""
        return self.at(torch.tensor(positions, device=device), dtype)

    def at(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the same for int64 positions `[A, n]` that are on a device."""
        frequencies, axis = self._on(positions.device)
        angles = positions[axis].T.double() * frequencies  # [n, R/2]
        angles = torch.cat([angles, angles], dim=-1)
        # rotation itself runs in float32 where the cache is in half precision
        kind = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        return (angles.cos() * self._scaling).to(kind), (angles.sin() * self._scaling).to(kind)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._devices:
            self._devices[device] = (self._frequencies.to(device), self._axis.to(device))
        return self._devices[device]


def inverse_frequencies(module: Any, layer_type: str | None) -> Tensor:
    """Return a rotary module's inverse frequencies `[R / 2]`, those of a layer type if it has any.

    Args:
        module: of transformers.
        layer_type: transformers' name of the type, or None.
    """
    own = getattr(module, f"{layer_type}_inv_freq", None)
    found: Tensor = module.inv_freq if own is None else own
    return found
