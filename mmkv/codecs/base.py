"""The contract of a codec: one layer of one page as bytes, and back.

A page is a whole number of consecutive blocks. What its blocks share (scales, means, channel
lists) is stored once; every block's codes can be decoded on their own, given that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmkv.kernels.rotate_write import rotate_write
from mmkv.models.layers import Shape

KINDS = ("keys", "values")


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer of one page.

    Attributes:
        shared: uint8 `[S]`, what the page's blocks share.
        blocks: per block uint8, the codes of its keys, then of its values.
    """

    shared: np.ndarray
    blocks: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of everything that decoding needs."""
        return int(self.shared.nbytes) + sum(int(block.nbytes) for block in self.blocks)


class Part(NamedTuple):
    """Blocks of one page that are to be decoded; `lengths` are their numbers of tokens."""

    shared: np.ndarray
    blocks: Sequence[np.ndarray]
    lengths: Sequence[int]


class Codec(ABC):
    """How keys (before RoPE) and values of the past are stored. One codec, one file.

    Attributes:
        name: what a configuration calls it.
        computes: whether packing is computation, which a GPU does if there is one, or only copying.
        judges: whether it uses how much each token matters.
    """

    name: ClassVar[str]
    computes: ClassVar[bool] = False
    judges: ClassVar[bool] = False

    @abstractmethod
    def encode_layers(
        self,
        layers: Sequence[int],
        states: Tensor,
        lengths: Sequence[int],
        salience: Sequence[Tensor] | None = None,
    ) -> list[PackedLayer]:
        """Pack some layers of a page at once.

        Args:
            layers: their numbers.
            states: `[len(layers), 2, H_kv, sum(lengths), D]`, keys before RoPE, then values.
            lengths: tokens of each block; a block may be empty.
            salience: per layer `[sum(lengths)]`, how much each token matters, infinite for text;
                None lets a codec that spends more bits on some tokens judge by what it packs.

        Raises:
            ValueError: keys or values are not finite, or their shape is not this codec's.
        """

    def encode(
        self,
        key: Tensor,
        value: Tensor,
        lengths: Sequence[int],
        layer: int,
        salience: Tensor | None = None,
    ) -> PackedLayer:
        """As `encode_layers`, for the keys and values `[H_kv, sum(lengths), D]` of one layer."""
        if key.shape != value.shape:
            raise ValueError(
                f"keys {list(key.shape)} and values {list(value.shape)} are not of one shape"
            )
        matters = None if salience is None else [salience]
        return self.encode_layers([layer], torch.stack([key, value])[None], lengths, matters)[0]

    @abstractmethod
    def decode(
        self,
        parts: Sequence[Part],
        layer: int,
        shape: Shape,
        device: torch.device,
        dtype: torch.dtype,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Unpack blocks of one layer, of any number of pages at once.

        Args:
            rotation: cosines and sines `[n, R]` to rotate the keys by; None: keys before RoPE.

        Returns:
            keys and values `[2, H_kv, n, D]` on `device`, in the order of `parts`.
        """

    def decode_into(
        self,
        parts: Sequence[Part],
        layer: int,
        shape: Shape,
        key: Tensor,
        value: Tensor,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """As `decode`, into existing keys and values `[H_kv, n, D]`, on their device."""
        kv = self.decode(parts, layer, shape, key.device, key.dtype)[:, None]
        rotate_write(kv[0], kv[1], rotation, key[None], value[None], 0)

    @abstractmethod
    def split(self, packed: PackedLayer, lengths: Sequence[int], layer: int) -> tuple[int, int]:
        """How many of the stored bytes belong to the keys, and how many to the values."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What `from_spec` needs to decode these bytes, as JSON types."""

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.spec().items() if k != "name")
        return f"<codec {self.name}: {inside}>" if inside else f"<codec {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codec) and self.spec() == other.spec()

    def __hash__(self) -> int:
        return hash(repr(self))


def bits_per_element(stored: Iterable[tuple[PackedLayer, int]]) -> float:
    """Stored bytes times eight over elements of keys and values; 0.0 where nothing is stored.

    Args:
        stored: packed layers, each with its number of elements, `2 * H_kv * tokens * D`.
    """
    nbytes = elements = 0
    for packed, count in stored:
        nbytes += packed.nbytes
        elements += count
    return 8 * nbytes / elements if elements else 0.0


def check_input(states: Tensor, lengths: Sequence[int], layers: Sequence[int]) -> Tensor:
    """Check that keys and values can be stored at all.

    Returns:
        the largest magnitude of each layer's keys and values, `[L, 2]` on the CPU.

    Raises:
        ValueError: shapes differ, lengths do not add up, or an element is NaN or infinite.
    """
    if states.ndim != 5 or states.shape[:2] != (len(layers), 2) or states.shape[3] != sum(lengths):
        raise ValueError(
            f"keys and values {list(states.shape)} do not fit blocks of {list(lengths)} tokens; "
            f"pass [{len(layers)}, 2, heads, {sum(lengths)}, head size]"
        )
    if not states.numel():
        return states.new_zeros(states.shape[:2]).cpu()
    flat = states.flatten(2)  # not `aminmax`, which is slow on a CPU
    largest = torch.maximum(-flat.amin(dim=2), flat.amax(dim=2)).cpu()
    if not largest.isfinite().all():
        row, which = largest.isfinite().logical_not().nonzero()[0].tolist()
        raise ValueError(
            f"the {KINDS[which]} of layer {layers[row]} hold NaN or infinity, which no codec can "
            "store; load the model in a wider dtype (bfloat16 or float32)"
        )
    return largest


def to_numpy(states: Tensor) -> np.ndarray:
    """A contiguous tensor's bytes, uint8 `[bytes]`."""
    return states.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy()


def to_tensor(stored: np.ndarray) -> Tensor:
    """Stored bytes as a tensor; a read-only array (a file mapped into memory) is copied."""
    return torch.from_numpy(stored if stored.flags.writeable else stored.copy())
