"""How packed keys and values are described: what a form says, and what a group of tokens shares.

One group of tokens shares, per head and channel, a scale and a centre. An element is a small whole
number c of 0…levels-1 and stands for `centre + scale * (c - (levels - 1) / 2)`: affine, so that
attention can fold both into the query. Some channels may be coded with 4 levels ("wide") and the
others, after an orthonormal transform over them, with fewer ("narrow"; VidKV, arXiv 2503.16257).

Layout
    slots        a head's channels in the order they are coded: the wide ones, then the narrow ones,
                 each in rising order; slot i is channel order[i].
    word         uint16 per head and channel: the low 6 bits code the scale of the channel's slot,
                 the high 10 bits its centre. Scale: 0 for zero, else top * 2^((code - 63) / 6) with
                 `top`, float32, the head's largest. Centre: (high - 512) scale steps of 1/8;
                 high 0 means that it is in the list of exact float32 values, high 1 that the
                 channel is constant as well.
    codes        a block's wide plane, then its narrow one. 2, 4 or 16 levels: rows [H, T] of bytes,
                 byte b of n * bits / 8, slot j of 8 / bits <-> element j * (bytes of a row) + b,
                 bits from the low end. 3 levels: the plane `[H, T, n]` flat, 5 codes a byte, byte b
                 of P = ceil(H * T * n / 5), digit j (times 3^j) <-> element j * P + b.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkv.kernels.sizes import BITS as BITS
from mmkv.kernels.sizes import WIDE_LEVELS as WIDE_LEVELS
from mmkv.kernels.sizes import Levels

FINEST, PER_OCTAVE = 63, 6  # scale codes: the largest, and how many of them halve it
UNITS, ZERO = 8, 512  # centre codes: steps per scale, and the one for 0
LISTED, CONSTANT = 0, 1
TRANSFORMS = ("hadamard", "fft", "none")


@dataclass(frozen=True, slots=True)
class Form(Levels):
    """How a tensor `[H, T, D]` is coded.

    Attributes:
        levels, wide: see `Levels`.
        transform: over the narrow channels.
        fitted: levels fitted to least squares, or else by VidKV's formulas.
        centred: the group's mean is subtracted before anything else.
    """

    transform: str = "none"
    fitted: bool = True
    centred: bool = True

    def matrix(self, head_dim: int, device: torch.device) -> Tensor | None:
        """The orthonormal float32 matrix that narrow channels are multiplied by; None for none."""
        if self.transform == "none":
            return None
        return _on_device(self.transform, head_dim - self.wide, device)


@dataclass(frozen=True, slots=True)
class Params:
    """What groups of tokens share; G groups.

    Attributes:
        words: int32 `[G, H, D]`, values of 16 bits.
        top: float32 `[G, H]`, the heads' largest scales.
        wide: bool `[G, H, D]`.
        listed: float32 `[E]`, exact centres in the order of the words that ask for them.
    """

    words: Tensor
    top: Tensor
    wide: Tensor
    listed: Tensor

    def to(self, device: torch.device) -> Params:
        """These parameters on another device."""
        held = (self.words, self.top, self.wide, self.listed)
        return Params(*(tensor.to(device) for tensor in held))


@dataclass(frozen=True, slots=True)
class Fit:
    """`Params` with an exact centre beside every word, whether it asks for it or not.

    words, top, wide: as in `Params`. exact: float32 `[G, H, D]`.
    """

    words: Tensor
    top: Tensor
    wide: Tensor
    exact: Tensor

    @property
    def params(self) -> Params:
        """The same with a list of the centres that words ask for; waits for the device."""
        listed = self.exact[(self.words >> 6) <= CONSTANT]
        return Params(self.words, self.top, self.wide, listed)


@dataclass(frozen=True, slots=True)
class Tables:
    """`Params` decoded.

    Attributes:
        scale: float32 `[G, H, D]` by slot.
        centre: float32 `[G, H, D]` by channel.
        order: int64 `[G, H, D]`, slot to channel.
        constant: bool `[G, H, D]` by channel, or None.
    """

    scale: Tensor
    centre: Tensor
    order: Tensor
    constant: Tensor | None


def tables(params: Params) -> Tables:
    """Scales and centres as numbers."""
    code = params.words & FINEST
    high = params.words >> 6
    scale = params.top[..., None] * ratios(params.words.device)[code]
    centre = (high - ZERO) * (scale / UNITS)
    listed = high <= CONSTANT
    constant = None
    if params.listed.numel():
        centre[listed] = params.listed
        constant = high == CONSTANT
    order = slot_order(params.wide)
    return Tables(scale.gather(2, order), centre, order, constant)


def slot_order(wide: Tensor) -> Tensor:
    """Channels `[..., D]` in the order of their slots: wide ones, then narrow ones."""
    return (~wide).to(torch.uint8).argsort(dim=-1, stable=True)


def transformed(slots: Tensor, wide: int, matrix: Tensor | None) -> Tensor:
    """States `[..., D]` by slot, their narrow part multiplied by a matrix."""
    if matrix is None:
        return slots
    return torch.cat([slots[..., :wide], slots[..., wide:] @ matrix], dim=-1)


@functools.cache
def _on_device(name: str, size: int, device: torch.device) -> Tensor:
    return orthonormal(name, size).to(device)


@functools.cache
def orthonormal(name: str, size: int) -> Tensor:
    """A real orthonormal matrix float32 `[size, size]`.

    "hadamard": Walsh's, in blocks of the largest power of two that divides the size.
    "fft": sines and cosines, the packed real and imaginary parts of a Fourier transform.
    """
    if name == "hadamard":
        block = torch.ones(1, 1, dtype=torch.float64)
        while size % (2 * len(block)) == 0:
            block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)])
        block = block / math.sqrt(len(block))
        return torch.block_diag(*[block] * (size // len(block))).float()
    if name == "fft":
        at = torch.arange(size, dtype=torch.float64)
        columns = [torch.full((size,), math.sqrt(1 / size), dtype=torch.float64)]
        for k in range(1, size // 2 + 1):
            angle = 2 * math.pi * k * at / size
            if 2 * k == size:
                columns.append(angle.cos() * math.sqrt(1 / size))
            else:
                columns += [angle.cos() * math.sqrt(2 / size), angle.sin() * math.sqrt(2 / size)]
        return torch.stack(columns, dim=1).float()
    raise ValueError(f"transform={name!r} is not known; use {', '.join(map(repr, TRANSFORMS))}")


@functools.cache
def ratios(device: torch.device) -> Tensor:
    """Scale over the largest one, float32 `[64]`, by code."""
    codes = torch.arange(FINEST + 1, dtype=torch.float64)
    ratios = torch.exp2((codes - FINEST) / PER_OCTAVE)
    ratios[0] = 0
    return ratios.float().to(device)
