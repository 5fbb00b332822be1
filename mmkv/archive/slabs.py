"""Host memory for the archive in large pieces.

Keys and values allocated chunk by chunk lie between short-lived tensors and fragment the heap,
which cost 11 KB per frame on the bundled model. A slab is freed with the last block in it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# from 32 MiB on glibc maps an allocation for itself and gives it back when it is freed
_SLAB_BYTES = 1 << 25


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
        element = torch.empty((), dtype=dtype).element_size()
        self._size = min(_SLAB_BYTES, limit // 16 if limit else _SLAB_BYTES) // element
        self._slab: Tensor | None = None
        self._used = 0

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """An uninitialised tensor of this shape."""
        count = math.prod(shape)
        if self._slab is None or self._used + count > self._slab.numel():
            size = max(count, self._size)
            self._slab = torch.empty(size, dtype=self._dtype, pin_memory=self._pinned)
            self._used = 0
        part = self._slab[self._used : self._used + count].view(shape)
        self._used += count
        return part
