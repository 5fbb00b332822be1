"""Codecs by name, and the one that a configuration means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from mmkv.codecs.base import Codec
from mmkv.codecs.fitted import Fitted
from mmkv.codecs.fp16 import DTYPES, Fp16
from mmkv.codecs.kivi import Kivi
from mmkv.codecs.packed import PackedCodec
from mmkv.codecs.settings import (
    Settings,
    check_bits,
    check_group_size,
    check_layers,
    check_transform,
)
from mmkv.codecs.stp import Stp
from mmkv.codecs.vidkv import VidKV
from mmkv.models.layers import Shape
from mmkv.registry import Registry

PACKED: Registry[PackedCodec] = Registry("codec", (Fitted, VidKV, Stp, Kivi))
CODECS: Registry[Codec] = Registry("codec", (Fp16, *PACKED.values()))


def make_codec(
    codec: str | Codec | None,
    shape: Shape,
    *,
    dtype: torch.dtype = torch.float32,
    key_weights: Tensor | None = None,
    key_bits: float | None = None,
    value_bits: float | None = None,
    group_size: int | None = None,
    transform: str | None = None,
    remove_mean: bool | None = None,
    protected_layers: Sequence[int] | None = None,
    protected_bits: float | None = None,
) -> Codec:
    """The codec that a configuration means for a model of this shape.

    Args:
        codec: a name, a codec of your own, or None for what the bits imply: with none, keys and
            values as they are; with a `value_bits` of 1.66, "stp"; else "fitted".
        dtype: of the model's keys and values.
        key_weights: see `Fp16`.
        others: see `Settings`; None for the codec's own default.

    Raises:
        ValueError: a setting is not allowed; the message says which, the value, and what is.
    """
    if isinstance(codec, Codec):
        return codec
    if codec is not None and not isinstance(codec, str):
        raise ValueError(f"codec={codec!r} is neither a name nor a codec; use {_names()}")
    bits = {"key_bits": key_bits, "value_bits": value_bits}
    name = _implied(key_bits, value_bits) if codec is None else codec
    CODECS.check(name)
    if name == "fp16":
        for field, value in bits.items():
            if value is not None:
                check_bits(field, value, (16,), name)
        others: tuple[tuple[str, Any], ...] = (
            ("group_size", group_size),
            ("transform", transform),
            ("remove_mean", remove_mean),
            ("protected_layers", protected_layers or None),
            ("protected_bits", protected_bits),
        )
        for field, setting in others:
            if setting is not None:
                raise ValueError(
                    f"{field}={setting!r} has no effect with codec='fp16', which packs nothing; "
                    f"leave it out, or use codec={', '.join(map(repr, PACKED))}"
                )
        names = {kind: known for known, kind in DTYPES.items()}
        return Fp16(names.get(dtype, "float32"), key_weights)
    kind = PACKED[name]
    found: dict[str, Any] = {}
    for field, choices in (("key_bits", kind.key_choices), ("value_bits", kind.value_choices)):
        if bits[field] is not None:
            found[field] = check_bits(field, bits[field], choices, name)
    if group_size is not None:
        found["group_size"] = check_group_size(group_size)
    if transform is not None:
        found["transform"] = check_transform(transform)
    if remove_mean is not None:
        if not isinstance(remove_mean, bool):
            raise ValueError(f"remove_mean={remove_mean!r} is not allowed; use True or False")
        found["remove_mean"] = remove_mean
    if protected_bits is not None:
        found["protected_bits"] = check_bits("protected_bits", protected_bits, (2, 4), name)
    found["protected_layers"] = check_layers(protected_layers or (), shape.layers)
    return kind(shape, replace(kind.defaults, **found))


def from_spec(spec: Mapping[str, Any], shape: Shape, key_weights: Tensor | None = None) -> Codec:
    """The codec that wrote a store, from what its `spec()` gave.

    Raises:
        ValueError: this version has no such codec or setting.
    """
    given = dict(spec)
    name = given.pop("name", None)
    if name not in CODECS:
        raise ValueError(
            f"the store's codec {name!r} is not known to this version; it knows "
            f"{', '.join(map(repr, CODECS))}"
        )
    one = given.pop("keys", None) == "values"
    if one and key_weights is None:
        raise ValueError(
            "the store keeps values only, from which this model's keys cannot be had: its weights "
            "are not in memory, or it is another model; open it with the model that made it"
        )
    known = {"dtype"} if name == "fp16" else {field.name for field in fields(Settings)}
    if set(given) != known:
        other = ", ".join(sorted(set(given) ^ known))
        raise ValueError(
            f"the store's codec {name!r} was written by another version (settings {other}); "
            "encode the video again"
        )
    if name == "fp16":
        return Fp16(given["dtype"], key_weights if one else None)
    return PACKED[name](shape, Settings(**given))


def _implied(key_bits: float | None, value_bits: float | None) -> str:
    if {key_bits, value_bits} <= {None, 16}:
        return "fp16"
    return "stp" if value_bits == 1.66 else "fitted"


def _names() -> str:
    return ", ".join(map(repr, CODECS))
