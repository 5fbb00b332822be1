"""Which codec a configuration means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmkv.codecs.base import Codec
from mmkv.codecs.fp16 import DTYPES, Fp16
from mmkv.models.base import Shape

CODECS: dict[str, type[Codec]] = {"fp16": Fp16}


def make_codec(
    codec: str | Codec | None, shape: Shape, *, dtype: torch.dtype = torch.float32
) -> Codec:
    """The codec that a configuration means for a model of this shape.

    Args:
        codec: a name, a codec of your own, or None for what the bits say.
        dtype: of the model's keys and values.

    Raises:
        ValueError: a setting is not allowed; the message says which, the value, and what is.
    """
    if isinstance(codec, Codec):
        return codec
    names = {kind: name for name, kind in DTYPES.items()}
    if codec is None or codec == "fp16":
        return Fp16(names.get(dtype, "float32"))
    raise ValueError(f"codec={codec!r} is not known; use {', '.join(map(repr, CODECS))}")


def from_spec(spec: Mapping[str, Any], shape: Shape) -> Codec:
    """The codec that wrote a store, from what its `spec()` gave.

    Raises:
        ValueError: this version has no such codec or setting.
    """
    settings = dict(spec)
    name = settings.pop("name", None)
    if name not in CODECS:
        raise ValueError(
            f"the store's codec {name!r} is not known to this version; it knows "
            f"{', '.join(map(repr, CODECS))}"
        )
    return CODECS[name](**settings)
