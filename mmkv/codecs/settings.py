"""The settings of packed codecs, checked once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from mmkv.kernels.pack.form import TRANSFORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a packed codec stores keys and values.

    Attributes:
        key_bits, value_bits: bits of an element's code; scales and means come on top.
        group_size: tokens that share a scale, None for all of a page's.
        transform: orthonormal, over the channels at 1 bit: "hadamard", "fft" or "none".
        remove_mean: subtract the mean of every channel first; large key biases then cost nothing.
        protected_layers: layers, counted from 0, that are stored at `protected_bits` instead.
        protected_bits: bits of a code in those layers.
    """

    key_bits: float
    value_bits: float
    group_size: int | None = None
    transform: str = "hadamard"
    remove_mean: bool = True
    protected_layers: tuple[int, ...] = ()
    protected_bits: float = 4

    def __post_init__(self) -> None:
        # from a store's JSON it comes as a list
        object.__setattr__(self, "protected_layers", tuple(self.protected_layers))


def check_bits(name: str, bits: Any, allowed: Sequence[float], codec: str) -> float:
    """`bits`, if this codec allows them.

    Raises:
        ValueError: it does not.
    """
    if isinstance(bits, Real) and not isinstance(bits, bool):
        for choice in allowed:
            if math.isclose(float(bits), choice):
                return choice
    raise ValueError(f"{name}={bits!r} is not allowed with codec={codec!r}; use {_either(allowed)}")


def check_group_size(size: Any) -> int:
    """`size`, if a group can have this many tokens.

    Raises:
        ValueError: it cannot.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 8 <= size <= 65535:
        raise ValueError(
            f"group_size={size!r} is not allowed; use a whole number of 8 to 65535 tokens, or "
            "None for all tokens of a page"
        )
    return size


def check_transform(name: Any) -> str:
    """`name`, if there is such a transform.

    Raises:
        ValueError: there is none.
    """
    if name not in TRANSFORMS:
        raise ValueError(f"transform={name!r} is not known; use {_either(TRANSFORMS)}")
    return str(name)


def check_layers(layers: Any, count: int) -> tuple[int, ...]:
    """Layer numbers of 0…count-1, in order; negative ones count from the last.

    Raises:
        ValueError: one is not a layer of the model.
    """
    known = isinstance(layers, Iterable) and not isinstance(layers, (str, bytes))
    listed = list(layers) if known else [layers]
    for layer in listed:
        whole = isinstance(layer, int) and not isinstance(layer, bool)
        if not known or not whole or not -count <= layer < count:
            raise ValueError(
                f"protected_layers={layers!r} is not allowed; list layers of 0 to {count - 1}, "
                "or negative ones counted from the last"
            )
    return tuple(sorted({int(layer) % count for layer in listed}))


def _either(choices: Sequence[Any]) -> str:
    *most, last = (repr(choice) for choice in choices)
    return f"{', '.join(most)} or {last}" if most else last
