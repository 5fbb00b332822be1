"""What an answer attends to in one layer, in one contiguous piece."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmkv.kernels.rotate_write import rotate_write, tokens_of


@dataclass(slots=True)
class LayerBuffer:
    """Keys and values `[1, H_kv, capacity, D]` of an answer in one layer."""

    key: Tensor
    value: Tensor

    def pick(self, tokens: Tensor, first: int) -> None:
        """Move these tokens, int64 `[H_kv, n]` by slot, to slots first, first + 1, …"""
        key, value = tokens_of(self.key[0], self.value[0], tokens)[:, None]
        rotate_write(key, value, None, self.key, self.value, first)
