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

    Raises:
        ValueError: it is none of these.
    """

    name: ClassVar[str] = "fp16"

    def __init__(self, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r} is not allowed; use {', '.join(map(repr, DTYPES))}")
        self._dtype = DTYPES[dtype]

    def encode_layers(
        self,
        layers: Sequence[int],
        states: Tensor,
        lengths: Sequence[int],
        salience: Sequence[Tensor] | None = None,
    ) -> list[PackedLayer]:
        check_input(states, lengths, layers)
        stored = states.to(self._dtype).cpu()
        if self._dtype == torch.float16 and states.dtype != torch.float16:
            check_input(stored, lengths, layers)  # beyond 65504 they would be infinite
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
        size = (2, shape.kv_heads, -1, shape.head_dim)
        blocks = [
            to_tensor(block).view(self._dtype).view(size)
            for part in parts
            for block, length in zip(part.blocks, part.lengths, strict=True)
            if length
        ]
        if not blocks:
            return torch.empty((2, shape.kv_heads, 0, shape.head_dim), device=device, dtype=dtype)
        both = torch.cat(blocks, dim=2).to(device).to(dtype)
        return both if rotation is None else torch.stack([rotate(both[0], rotation), both[1]])

    def split(self, packed: PackedLayer, lengths: Sequence[int], layer: int) -> tuple[int, int]:
        half = sum(int(block.nbytes) for block in packed.blocks) // 2
        return half, half

    def spec(self) -> dict[str, Any]:
        names = {kind: name for name, kind in DTYPES.items()}
        return {"name": self.name, "dtype": names[self._dtype]}
