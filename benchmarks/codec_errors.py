"""Squared errors of packing: one codec's pages, and two codecs at the same bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkv.codecs import Codec, Part, bits_per_element, make_codec
from mmkv.models.layers import Shape

BLOCK, PAGE = 16, 64  # tokens
KINDS_OF_NOISE = ("gaussian", "biased", "laplace")


class Packing:
    """One codec's pages: what comes back, and the bits they take."""

    def __init__(self, codec: Codec, shape: Shape) -> None:
        self.codec, self.shape = codec, shape
        self.key_bytes = self.value_bytes = self.elements = 0

    def __call__(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values `[H_kv, T, D]` after packing."""
        pages = []
        for k, v in zip(key.split(PAGE, 1), value.split(PAGE, 1), strict=True):
            lengths = [len(part) for part in torch.arange(k.shape[1]).split(BLOCK)]
            packed = self.codec.encode(k, v, lengths, layer)
            sizes = self.codec.split(packed, lengths, layer)
            assert 8 * sum(sizes) == bits_per_element([(packed, 1)])
            self.key_bytes += sizes[0]
            self.value_bytes += sizes[1]
            self.elements += k.numel()
            pages.append(Part(packed.shared, packed.blocks, lengths))
        both = self.codec.decode(pages, layer, self.shape, key.device, torch.float32)
        return both[0], both[1]

    def bits(self) -> dict[str, float]:
        """Bits per element so far."""
        return {
            "key_bits": 8 * self.key_bytes / self.elements,
            "value_bits": 8 * self.value_bytes / self.elements,
        }


def relative(found: Tensor, wanted: Tensor) -> float:
    """Squared error relative to squared size."""
    return float((found - wanted).square().sum() / wanted.square().sum())


def mean(values: list[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def equal_bits(kv: Tensor) -> dict[str, Any]:
    """Squared errors of keys and values `[L, 2, H, T, D]`, fitted and by formula."""
    shape = Shape(len(kv), 2 * kv.shape[2], kv.shape[2], kv.shape[4])
    found: dict[str, Any] = {}
    for bits in (1.5, 1.58, 2):
        row: dict[str, Any] = {}
        for label, name, size in (
            ("fitted", "fitted", None),
            ("vidkv", "vidkv", None),
            ("vidkv, groups of 32", "vidkv", 32),
        ):
            made = make_codec(name, shape, key_bits=bits, value_bits=bits, group_size=size)
            packing, errors = Packing(made, shape), []
            for layer in range(len(kv)):
                after = torch.stack(packing(kv[layer, 0], kv[layer, 1], layer))
                errors.append([relative(after[i], kv[layer, i]) for i in (0, 1)])
            row[label] = {
                "key_error": mean([e[0] for e in errors]),
                "value_error": mean([e[1] for e in errors]),
                **packing.bits(),
            }
        found[str(bits)] = row
    return found


def synthetic(kind: str) -> Tensor:
    """Gaussian, with a mean per channel ("biased"), or Laplace."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(1, 2, 4, 1024, 64, generator=generator)
    if kind == "laplace":
        u = torch.rand(normal.shape, generator=generator).clamp_(1e-7, 1 - 1e-7) - 0.5
        return -u.sign() * (1 - 2 * u.abs()).log()
    if kind == "biased":
        return normal + 2 * torch.randn(1, 2, 4, 1, 64, generator=generator)
    return normal
