"""KIVI (arXiv 2402.02750): keys per channel, values per token, both from least to largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mmkv.codecs.base import Part, to_numpy
from mmkv.codecs.packed import PackedCodec
from mmkv.codecs.packer import ChannelPacker, Packer
from mmkv.codecs.settings import Settings
from mmkv.kernels.pack import Form, pack_bits
from mmkv.kernels.unpack_rotate import unpack_bits
from mmkv.models.base import Shape

_CHANNELS = 32  # of a value that share a scale
_HALF = torch.finfo(torch.float16)


class Kivi(PackedCodec):
    """KIVI's two ways to group; its full-precision tail is the window and the recent frames."""

    name: ClassVar[str] = "kivi"
    key_choices: ClassVar[tuple[float, ...]] = (2, 4)
    value_choices: ClassVar[tuple[float, ...]] = (2, 4)
    defaults: ClassVar[Settings] = Settings(
        key_bits=2, value_bits=2, group_size=32, transform="none", remove_mean=False
    )

    def key_packer(self, bits: float) -> ChannelPacker:
        return ChannelPacker(self.form(bits, fitted=False), self.settings.group_size)

    def value_packer(self, bits: float) -> Packer:
        return TokenPacker(self.form(bits, fitted=False))


class TokenPacker(Packer):
    """A scale and a least value, float16, for every token and 32 of its channels.

    A block's bytes: scales, then least values, `[H, T, groups]` each, then the codes.
    """

    def __init__(self, form: Form) -> None:
        self.form = form

    def pack(
        self, states: Tensor, lengths: Sequence[int], salience: Tensor | None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        x = _grouped(states.float())  # [H, T, groups, channels]
        low, high = x.amin(dim=3), x.amax(dim=3)
        largest = float(x.abs().amax())
        if largest > _HALF.max:
            raise ValueError(
                f"values reach {largest:.3g}, and codec='kivi' stores them up to {_HALF.max:.0f}; "
                "use codec='fitted' or 'fp16'"
            )
        scale = ((high - low) / (self.form.levels - 1)).half()
        low = low.half()
        inverse = torch.where(scale > 0, 1 / scale.float(), 0.0)
        codes = (x - low.float()[..., None]) * inverse[..., None]
        codes = codes.round().clamp(0, self.form.levels - 1).to(torch.uint8).flatten(2)
        blocks = []
        for s, m, c in zip(
            scale.split(list(lengths), 1), low.split(list(lengths), 1),
            codes.split(list(lengths), 1), strict=True,
        ):  # fmt: skip
            planes = to_numpy(pack_bits(c[None], self.form))
            blocks.append(np.concatenate([to_numpy(s), to_numpy(m), planes]))
        return np.empty(0, dtype=np.uint8), blocks

    def unpack(
        self, parts: Sequence[Part], shape: Shape, rotation: tuple[Tensor, Tensor] | None,
        out: Tensor,
    ) -> None:  # fmt: skip
        blocks = [b for part in parts for b in part.blocks]
        lengths = [n for part in parts for n in part.lengths]
        starts = np.cumsum([0, *lengths])
        heads, head_dim = shape.kv_heads, shape.head_dim
        for length in set(lengths) - {0}:
            which = [i for i, other in enumerate(lengths) if other == length]
            size = self._numbers(length, shape)
            data = torch.from_numpy(np.stack([blocks[i] for i in which])).to(out.device)
            numbers = data[:, : 2 * size].contiguous().view(torch.float16).float()
            scale, low = numbers.view(len(which), 2, heads, length, -1, 1).unbind(1)
            at = torch.arange(len(which), device=out.device) * data.shape[1] + 2 * size
            codes = unpack_bits(data.flatten(), at, length, heads, head_dim, self.form)
            states = (_grouped(codes) * scale + low).flatten(3)  # [N, H, T, D]
            first = torch.from_numpy(starts[which][:, None] + np.arange(length)).flatten()
            out[:, first.to(out.device)] = states.transpose(0, 1).flatten(1, 2).to(out.dtype)

    def _numbers(self, length: int, shape: Shape) -> int:
        """Bytes of a block's scales, and of its least values."""
        groups = shape.head_dim // _width(shape.head_dim)
        return 2 * shape.kv_heads * length * groups


def _grouped(states: Tensor) -> Tensor:
    return states.unflatten(-1, (-1, _width(states.shape[-1])))


def _width(head_dim: int) -> int:
    return _CHANNELS if head_dim % _CHANNELS == 0 else head_dim
