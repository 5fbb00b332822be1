"""KIVI (arXiv 2402.02750): keys per channel, values per token, both from least to largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mmkv.codecs.base import Part
from mmkv.codecs.packed import PackedCodec
from mmkv.codecs.packer import ChannelPacker, Packed, Packer, at_once
from mmkv.codecs.settings import Settings
from mmkv.kernels.pack import Form
from mmkv.kernels.token_pack import block_bytes, pack_tokens, unpack_tokens
from mmkv.models.layers import Shape

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
    """A scale and a least value for every token and 32 of its channels; blocks share nothing."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def pack(
        self, states: Tensor, lengths: Sequence[int], salience: Sequence[Tensor] | None
    ) -> list[Packed]:
        largest = float(states.abs().amax())
        if largest > _HALF.max:
            raise ValueError(
                f"values reach {largest:.3g}, and codec='kivi' stores them up to {_HALF.max:.0f}; "
                "use codec='fitted' or 'fp16'"
            )
        heads, _, head_dim = states.shape[1:]
        sizes = [sum(block_bytes(self.form, heads, length, head_dim)) for length in lengths]
        cuts = np.cumsum(sizes)[:-1]
        packed: list[Packed] = []
        for some in at_once(states):
            layers = pack_tokens(some, lengths, self.form).cpu().numpy()
            packed += [(np.empty(0, dtype=np.uint8), np.split(layer, cuts)) for layer in layers]
        return packed

    def unpack(
        self, parts: Sequence[Part], shape: Shape, rotation: tuple[Tensor, Tensor] | None,
        out: Tensor,
    ) -> None:  # fmt: skip
        blocks = [b for part in parts for b in part.blocks]
        lengths = [n for part in parts for n in part.lengths]
        sizes = np.array([len(block) for block in blocks])
        data = torch.from_numpy(np.concatenate(blocks)).to(out.device)
        at = torch.from_numpy(np.cumsum(sizes) - sizes).to(out.device)
        unpack_tokens(data, at, lengths, self.form, out)
