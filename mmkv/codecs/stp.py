"""Semantic token protection (VidKV, arXiv 2503.16257): values of salient tokens at 2 bits.

"1.66" bits: a fifth of a page's tokens at 2 bits, the others ternary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mmkv.codecs.base import Part
from mmkv.codecs.packed import PackedCodec
from mmkv.codecs.packer import ChannelPacker, Packed, Packer
from mmkv.codecs.settings import Settings
from mmkv.models.layers import Shape

_SHARE = 0.2
_SIZE = np.dtype("<u4")


class Stp(PackedCodec):
    """The fitted codec with ternary values, except those of salient tokens, which take 2 bits.

    Salient are the fifth of the visual tokens that is most like the text (`salience.py`), and all
    text. Where `encode` gets no salience, a token is the more salient the farther its value is from
    the page's mean, which is what ternary codes would lose.
    """

    name: ClassVar[str] = "stp"
    judges: ClassVar[bool] = True
    value_choices: ClassVar[tuple[float, ...]] = (1.66,)
    defaults: ClassVar[Settings] = Settings(key_bits=1.5, value_bits=1.66)

    def key_packer(self, bits: float) -> ChannelPacker:
        return ChannelPacker(self.form(bits, fitted=True), self.settings.group_size)

    def value_packer(self, bits: float) -> Packer:
        if bits != 1.66:
            return self.key_packer(bits)
        return SalientPacker(self.key_packer(2), self.key_packer(1.58))


class SalientPacker(Packer):
    """Salient tokens through one packer, the others through another.

    A page's bytes: the salient part's, preceded by their length, then the others'. A block's: a bit
    for every token, the salient tokens' bytes, the others'.
    """

    def __init__(self, salient: ChannelPacker, others: ChannelPacker) -> None:
        self._packers = (salient, others)

    def pack(
        self, states: Tensor, lengths: Sequence[int], salience: Sequence[Tensor] | None
    ) -> list[Packed]:
        alike: dict[bytes, list[int]] = {}  # layers grouped by which of their tokens are salient
        for layer, own in enumerate(states):
            chosen = _most_salient(own, None if salience is None else salience[layer])
            alike.setdefault(chosen.numpy().tobytes(), []).append(layer)
        packed: dict[int, Packed] = {}
        for flags, layers in alike.items():
            mask = np.frombuffer(flags, dtype=bool)
            packed.update(zip(layers, self._pack(states[layers], lengths, mask), strict=True))
        return [packed[layer] for layer in range(len(states))]

    def _pack(self, states: Tensor, lengths: Sequence[int], chosen: np.ndarray) -> Iterator[Packed]:
        """Pack layers in which the same tokens are salient."""
        cuts = np.cumsum(lengths)[:-1]
        halves: list[list[Packed]] = []
        for packer, mask in zip(self._packers, (chosen, ~chosen), strict=True):
            counts = [int(part.sum()) for part in np.split(mask, cuts)]
            if any(counts):
                at = torch.from_numpy(np.flatnonzero(mask)).to(states.device)
                halves.append(packer.pack(states[:, :, at], counts, None))
            else:
                nothing = np.empty(0, dtype=np.uint8)
                halves.append([(nothing, [nothing] * len(lengths))] * len(states))
        flags = [np.packbits(part) for part in np.split(chosen, cuts)]
        for (shared, blocks), (more, others) in zip(*halves, strict=True):
            size = np.array([len(shared)], dtype=_SIZE).view(np.uint8)
            parts = zip(flags, blocks, others, strict=True)
            yield np.concatenate([size, shared, more]), [np.concatenate(p) for p in parts]

    def unpack(
        self, parts: Sequence[Part], shape: Shape, rotation: tuple[Tensor, Tensor] | None,
        out: Tensor,
    ) -> None:  # fmt: skip
        halves: tuple[list[Part], list[Part]] = ([], [])
        flags = []
        for part in parts:
            end = _SIZE.itemsize + int(part.shared[: _SIZE.itemsize].copy().view(_SIZE)[0])
            shared = (part.shared[_SIZE.itemsize : end], part.shared[end:])
            blocks: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
            counts: tuple[list[int], list[int]] = ([], [])
            for block, length in zip(part.blocks, part.lengths, strict=True):
                bits = -(-length // 8)
                mask = np.unpackbits(block[:bits], count=length).astype(bool)
                flags.append(mask)
                salient = int(mask.sum())
                cut = bits + self._packers[0].block_bytes(salient, shape)
                for i, (own, count) in enumerate(
                    ((block[bits:cut], salient), (block[cut:], length - salient))
                ):
                    blocks[i].append(own)
                    counts[i].append(count)
            for i in range(2):
                if sum(counts[i]):
                    halves[i].append(Part(shared[i], blocks[i], counts[i]))
        chosen = torch.from_numpy(np.concatenate(flags)).to(out.device)
        for packer, half, which in zip(self._packers, halves, (chosen, ~chosen), strict=True):
            if half:
                states = out.new_empty((out.shape[0], int(which.sum()), out.shape[2]))
                packer.unpack(half, shape, None, states)
                out[:, which] = states


def _most_salient(states: Tensor, salience: Tensor | None) -> Tensor:
    """The fifth of the tokens that matters most and all that matter infinitely, bool `[T]`, CPU."""
    if salience is None:
        x = states.float()
        salience = (x - x.mean(dim=1, keepdim=True)).square().sum(dim=(0, 2))
    salience = salience.float().cpu()
    chosen = salience == torch.inf
    rest = salience.masked_fill(chosen, -torch.inf)
    top = rest.topk(round(_SHARE * int((~chosen).sum()))).indices
    return chosen.index_fill_(0, top, True)
