"""What an answer attends to in one layer, in one contiguous piece."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class LayerBuffer:
    """Keys and values `[1, H_kv, capacity, D]` of an answer in one layer."""

    key: Tensor
    value: Tensor

    def pick(self, rows: Tensor) -> None:
        """Move these tokens to the front, where they lie, int64 `[H_kv, n]` in rising order."""
        place = rows[None, :, :, None].expand(-1, -1, -1, self.key.shape[3])
        for states in (self.key, self.value):
            states[:, :, : rows.shape[1]] = states.gather(2, place)
