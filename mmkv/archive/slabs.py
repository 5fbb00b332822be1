"""Host memory for the archive in large pieces.

Keys and values allocated chunk by chunk lie between short-lived tensors and fragment the heap,
which cost 11 KB per frame on the bundled model. A slab is freed with the last block in it.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

_SLAB_BYTES = 1 << 25
_PARTS = 16  # slabs per limit, so that what is held exceeds it by little


class Slabs:
    """Hands out parts of large host tensors.

    Args:
        dtype: of the elements.
        pinned: use page-locked memory, for fast copies to a GPU.
        limit: bytes the archive may hold; slabs are at most a sixteenth of it.
    """

    def __init__(self, dtype: torch.dtype, *, pinned: bool, limit: int | None) -> None:
        self._dtype = dtype
        self._pinned = pinned
        self._element = torch.empty((), dtype=dtype).element_size()
        self._size = (min(_SLAB_BYTES, limit // _PARTS) if limit else _SLAB_BYTES) // self._element
        self._slab: Tensor | None = None
        self._used = 0

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """An uninitialised tensor of this shape."""
        count = math.prod(shape)
        if self._slab is None or self._used + count > self._slab.numel():
            self._slab = self._new(max(count, self._size, 1))
            self._used = 0
        part = self._slab[self._used : self._used + count].view(shape)
        self._used += count
        return part

    def clear(self) -> None:
        """Let go of the slab that parts are taken from; the parts keep it."""
        self._slab = None

    def _new(self, count: int) -> Tensor:
        if self._pinned:
            return torch.empty(count, dtype=self._dtype, pin_memory=True)
        # mapped for itself: malloc takes smaller slabs from its heap, which then never shrinks
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        mapped = mmap.mmap(-1, count * self._element, flags=private)
        return torch.frombuffer(mapped, dtype=self._dtype, count=count)
