"""Packed groups of tokens as attention reads them: codes, and what the tokens of a group share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmkv.kernels.pack.form import (
    CONSTANT,
    FINEST,
    UNITS,
    ZERO,
    Form,
    Params,
    ratios,
    slot_order,
)

_BYTE = 256  # channels that a byte can number


@dataclass(frozen=True, slots=True)
class Compact:
    """What P groups share: `Params` with every number in its channel's place, and the order.

    Attributes:
        words: int16 `[P, H, D]`.
        top: float32 `[P, H]`.
        order: uint8 `[P, H, D]`, slot to channel, int16 where heads are longer than 256; None where
            slots are channels.
        exact: float32 `[P, H, D]`, the centres that words ask for; None where words code them all.
    """

    words: Tensor
    top: Tensor
    order: Tensor | None
    exact: Tensor | None

    def __getitem__(self, groups: slice) -> Compact:
        order, exact = (None if t is None else t[groups] for t in (self.order, self.exact))
        return Compact(self.words[groups], self.top[groups], order, exact)

    @property
    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        held = (self.words, self.top, self.order, self.exact)
        return [tensor for tensor in held if tensor is not None]


@dataclass(frozen=True, slots=True)
class Affine:
    """`Compact` as numbers.

    Attributes:
        scale: float32 `[P, H, D]` by slot.
        centre: float32 `[P, H, D]` by channel.
        order: as in `Compact`.
        constant: bool `[P, H, D]` by channel; None if none is.
    """

    scale: Tensor
    centre: Tensor
    order: Tensor | None
    constant: Tensor | None

    def __getitem__(self, groups: slice) -> Affine:
        order, constant = (None if t is None else t[groups] for t in (self.order, self.constant))
        return Affine(self.scale[groups], self.centre[groups], order, constant)

    @property
    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        held = (self.scale, self.centre, self.order, self.constant)
        return [tensor for tensor in held if tensor is not None]


@dataclass(frozen=True)
class PackedHistory:
    """P groups of one layer's tokens on one device.

    Attributes:
        keys: uint8 `[P, H_kv, T, D * bits / 8]`.
        values: uint8 `[P, H_kv, D, T * bits / 8]`.
        key_params, value_params: of P groups.
        key_form, value_form: how they were coded.
    """

    keys: Tensor
    values: Tensor
    key_params: Compact
    value_params: Compact
    key_form: Form
    value_form: Form

    @cached_property
    def affine(self) -> tuple[Affine, Affine]:
        """The keys' and values' scales and centres, decoded once, for attention in torch."""
        return affine(self.key_params), affine(self.value_params)

    @property
    def tensors(self) -> list[Tensor]:
        """All that it holds, decoded scales and centres too."""
        params = [self.key_params, self.value_params, *self.__dict__.get("affine", ())]
        return [self.keys, self.values, *(t for own in params for t in own.tensors)]


def compact(params: Params, form: Form) -> Compact:
    """Parameters of P groups in the form that attention reads."""
    high, order, exact = params.words >> 6, None, None
    if form.wide:
        held = torch.uint8 if high.shape[2] <= _BYTE else torch.int16
        order = slot_order(params.wide).to(held)
    if params.listed.numel():
        exact = torch.zeros_like(high, dtype=torch.float32)
        exact[high <= CONSTANT] = params.listed
    words = params.words.to(torch.int16)  # keeps the low 16 bits
    return Compact(words, params.top, order, exact)


def affine(shared: Compact) -> Affine:
    """Scales and centres as numbers, as `pack.form.tables` has them."""
    words = shared.words.int()
    high = (words >> 6) & (2 * ZERO - 1)
    scale = shared.top[..., None] * ratios(words.device)[words & FINEST]
    centre, constant = (high - ZERO) * (scale / UNITS), None
    if shared.exact is not None:
        centre = torch.where(high <= CONSTANT, shared.exact, centre)
        constant = high == CONSTANT
    if shared.order is not None:
        scale = scale.gather(2, shared.order.long())
    return Affine(scale, centre, shared.order, constant)
