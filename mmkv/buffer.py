"""What an answer attends to in one layer, in one contiguous piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor


@dataclass(slots=True)
class LayerBuffer:
    """Keys and values `[1, H_kv, capacity, D]` of an answer in one layer.

    length: how many are in use. prompt: how many stand before the prompt.
    start: position `[A]` of the prompt's first token.
    """

    key: Tensor
    value: Tensor
    length: int
    prompt: int
    start: np.ndarray

    def pick(self, rows: Tensor) -> None:
        """Keep these tokens only, int64 `[H_kv, n]` in rising order, none of the prompt missing."""
        room = self.key.shape[2] - self.length
        place = rows[None, :, :, None].expand(-1, -1, -1, self.key.shape[3])
        gone = self.length - rows.shape[1]
        more = (0, 0, 0, room)
        self.key = F.pad(self.key.gather(2, place), more)
        self.value = F.pad(self.value.gather(2, place), more)
        self.length -= gone
        self.prompt -= gone

    def extend(self, key: Tensor, value: Tensor) -> None:
        """Write the next tokens, into twice the room where the answer outgrows it."""
        end = self.length + key.shape[2]
        if end > self.key.shape[2]:
            more = (0, 0, 0, max(end, 2 * self.key.shape[2]) - self.key.shape[2])
            self.key, self.value = F.pad(self.key, more), F.pad(self.value, more)
        self.key[:, :, self.length : end] = key
        self.value[:, :, self.length : end] = value
        self.length = end
