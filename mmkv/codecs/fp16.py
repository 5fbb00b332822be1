"""Keys and values as they are: lossless, or in 16 bits if so configured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmkv.codecs.base import Codec, PackedLayer, Part, check_input, to_numpy, to_tensor
from mmkv.kernels.common.naive import rotate
from mmkv.models.layers import Shape

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class Fp16(Codec):
    """Raw elements, decoded bit for bit where `dtype` is the model's.

    Args:
        dtype: what an element is stored as, "float16", "bfloat16" or "float32".
        key_weights: float32 `[L, D]`, where keys before RoPE are values times these: only values
            are stored, and keys are rounded once more than the model rounds them. None: both are.

    Raises:
        ValueError: it is none of these.
    """

    name: ClassVar[str] = "fp16"

    def __init__(self, dtype: str, key_weights: Tensor | None = None) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r} is not allowed; use {', '.join(map(repr, DTYPES))}")
        self._dtype = DTYPES[dtype]
        self._weights = key_weights

    def encode_layers(
        self,
        layers: Sequence[int],
        states: Tensor,
        lengths: Sequence[int],
        salience: Sequence[Tensor] | None = None,
    ) -> list[PackedLayer]:
        check_input(states, lengths, layers)
        stored = states.to(self._dtype).cpu()
        if self._weights is not None:
            stored = stored[:, 1:]
        if self._dtype == torch.float16 and states.dtype != torch.float16:
            check_input(states.to(self._dtype), lengths, layers)  # beyond 65504: infinite
        return [
            PackedLayer(
                np.empty(0, dtype=np.uint8),
                [to_numpy(block) for block in both.split(list(lengths), dim=2)],
            )
            for both in stored
        ]

    def decode(
        self,
        parts: Sequence[Part],
        layer: int,
        shape: Shape,
        device: torch.device,
        dtype: torch.dtype,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        size = (1 if self._weights is not None else 2, shape.kv_heads, -1, shape.head_dim)
        blocks = [
            to_tensor(block).view(self._dtype).view(size)
            for part in parts
            for block, length in zip(part.blocks, part.lengths, strict=True)
            if length
        ]
        if not blocks:
            return torch.empty((2, shape.kv_heads, 0, shape.head_dim), device=device, dtype=dtype)
        both = torch.cat(blocks, dim=2).to(device).to(dtype)
        if self._weights is not None:
            key = (both[0].float() * self._weights[layer].to(device)).to(dtype)
            both = torch.stack([key, both[0]])
        return both if rotation is None else torch.stack([rotate(both[0], rotation), both[1]])

    def split(self, packed: PackedLayer, lengths: Sequence[int], layer: int) -> tuple[int, int]:
        stored = sum(int(block.nbytes) for block in packed.blocks)
        return (stored // 2, stored // 2) if self._weights is None else (0, stored)

    def spec(self) -> dict[str, Any]:
        names = {kind: name for name, kind in DTYPES.items()}
        one = {} if self._weights is None else {"keys": "values"}
        return {"name": self.name, "dtype": names[self._dtype], **one}
