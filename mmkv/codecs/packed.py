"""What codecs of few bits share: keys and values packed side by side, protected layers.

A page's shared bytes are the keys' part, preceded by its length, then the values' part; a block's
bytes are its keys', then its values'.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmkv.codecs.base import KINDS, Codec, PackedLayer, Part, check_input
from mmkv.codecs.packer import ChannelPacker, Packer
from mmkv.codecs.settings import Settings
from mmkv.codecs.sizes import PREFIX, levels_of
from mmkv.kernels.pack import Form
from mmkv.models.layers import Shape

# sums of squares of larger numbers, also after a transform, can overflow float32
_LARGEST = 1e16
_SIZE = np.dtype(f"<u{PREFIX}")


class PackedCodec(Codec):
    """Keys and values at few bits, in some layers at more.

    Args:
        shape: the model's.
        settings: already checked by `registry.py`.

    Raises:
        ValueError: the model's heads cannot be packed.
    """

    computes: ClassVar[bool] = True
    key_choices: ClassVar[tuple[float, ...]] = (1.5, 1.58, 2, 4)
    value_choices: ClassVar[tuple[float, ...]] = (1.5, 1.58, 2, 4)
    defaults: ClassVar[Settings]

    def __init__(self, shape: Shape, settings: Settings) -> None:
        if shape.head_dim % 16:
            raise ValueError(
                f"codec={self.name!r} packs heads whose size is a multiple of 16, and this "
                f"model's is {shape.head_dim}; use codec='fp16'"
            )
        self.shape, self.settings = shape, settings
        bits = (settings.key_bits, settings.value_bits)
        self._packers = (self.key_packer(bits[0]), self.value_packer(bits[1]))
        more = settings.protected_bits
        self._protected = (self.key_packer(more), self.value_packer(more))

    @abstractmethod
    def key_packer(self, bits: float) -> ChannelPacker:
        """What packs keys at this many bits.

        The length of a block's bytes must follow from its number of tokens, so that its values are
        found behind them.
        """

    @abstractmethod
    def value_packer(self, bits: float) -> Packer:
        """What packs values at this many bits."""

    def packers(self, layer: int) -> tuple[ChannelPacker, Packer]:
        """What packs this layer's keys and values."""
        return self._protected if layer in self.settings.protected_layers else self._packers

    def form(self, bits: float, *, fitted: bool) -> Form:
        """How so many bits are coded; 1.5 is half of the channels at 2 bits, the others at 1."""
        settings, coded = self.settings, levels_of(bits, self.shape.head_dim)
        transform = settings.transform if coded.wide else "none"
        return Form(coded.levels, coded.wide, transform, fitted, settings.remove_mean)

    def encode_layers(
        self,
        layers: Sequence[int],
        states: Tensor,
        lengths: Sequence[int],
        salience: Sequence[Tensor] | None = None,
    ) -> list[PackedLayer]:
        largest = check_input(states, lengths, layers)
        expected = (self.shape.kv_heads, sum(lengths), self.shape.head_dim)
        if states.shape[2:] != expected:
            raise ValueError(
                f"keys {list(states.shape[2:])} are not those of this codec's model, "
                f"{list(expected)}"
            )
        if not states.shape[3]:
            return [PackedLayer(_nothing(), [_nothing() for _ in lengths]) for _ in layers]
        if largest.max() > _LARGEST:
            row, which = (largest > _LARGEST).nonzero()[0].tolist()
            raise ValueError(
                f"the {KINDS[which]} of layer {layers[row]} reach {largest[row, which]:.3g}; "
                f"codec={self.name!r} takes up to {_LARGEST:.0e}, so use codec='fp16'"
            )
        found: dict[int, PackedLayer] = {}
        for alike in (True, False):  # protected layers, and the others
            own = [
                i for i, n in enumerate(layers) if (n in self.settings.protected_layers) == alike
            ]
            if own:
                some = states if len(own) == len(layers) else states[own]
                matters = None if salience is None else [salience[i] for i in own]
                packers = self.packers(layers[own[0]])
                found.update(zip(own, self._encode(packers, some, lengths, matters), strict=True))
        return [found[i] for i in range(len(layers))]

    def _encode(
        self,
        packers: tuple[Packer, Packer],
        states: Tensor,
        lengths: Sequence[int],
        salience: Sequence[Tensor] | None,
    ) -> Iterator[PackedLayer]:
        """Layers with the same packers."""
        halves = [packer.pack(states[:, i], lengths, salience) for i, packer in enumerate(packers)]
        for (shared, blocks), (more, others) in zip(*halves, strict=True):
            size = np.array([len(shared)], dtype=_SIZE).view(np.uint8)
            pairs = zip(blocks, others, strict=True)
            yield PackedLayer(
                np.concatenate([size, shared, more]), [np.concatenate(pair) for pair in pairs]
            )

    def decode(
        self,
        parts: Sequence[Part],
        layer: int,
        shape: Shape,
        device: torch.device,
        dtype: torch.dtype,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        tokens = sum(sum(p.lengths) for p in parts)
        size = (2, shape.kv_heads, tokens, shape.head_dim)
        out = torch.empty(size, device=device, dtype=dtype)
        self.decode_into(parts, layer, shape, out[0], out[1], rotation)
        return out

    def decode_into(
        self,
        parts: Sequence[Part],
        layer: int,
        shape: Shape,
        key: Tensor,
        value: Tensor,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        parts = [p for p in parts if sum(p.lengths)]
        if not parts:
            return
        keys, values = self.packers(layer)
        halves = [self.halves(part, layer) for part in parts]
        keys.unpack([k for k, _ in halves], shape, rotation, key)
        values.unpack([v for _, v in halves], shape, None, value)

    def split(self, packed: PackedLayer, lengths: Sequence[int], layer: int) -> tuple[int, int]:
        if not len(packed.shared):
            return 0, 0
        key, value = self.halves(Part(packed.shared, packed.blocks, lengths), layer)
        sizes = [int(p.shared.nbytes) + sum(int(b.nbytes) for b in p.blocks) for p in (key, value)]
        return sizes[0] + _SIZE.itemsize, sizes[1]

    def spec(self) -> dict[str, Any]:
        found = asdict(self.settings)
        return {"name": self.name, **found, "protected_layers": [*found["protected_layers"]]}

    def halves(self, part: Part, layer: int) -> tuple[Part, Part]:
        """The keys' and the values' bytes of a page that has tokens."""
        keys, shared = self.packers(layer)[0], part.shared
        end = _SIZE.itemsize + int(shared[: _SIZE.itemsize].copy().view(_SIZE)[0])
        cuts = [keys.block_bytes(n, self.shape) for n in part.lengths]
        pairs = list(zip(part.blocks, cuts, strict=True))
        return (
            Part(shared[_SIZE.itemsize : end], [b[:cut] for b, cut in pairs], part.lengths),
            Part(shared[end:], [b[cut:] for b, cut in pairs], part.lengths),
        )


def _nothing() -> np.ndarray:
    return np.empty(0, dtype=np.uint8)
