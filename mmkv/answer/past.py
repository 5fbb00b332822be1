"""How an answer reaches what is older than its recent frames: one strategy for all layers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from mmkv.archive import CachedBlock
from mmkv.engine.decode_buffers import LayerBuffer
from mmkv.kernels.buffer_attention import buffer_attention

Table = tuple[Tensor, Tensor]  # cosines and sines [n, R]


class Past(ABC):
    """What a `RetrievalPass` asks of the past.

    Attributes:
        keep: share of the loaded visual tokens that the answer is generated from, those that the
            prompt attends to most; the prompt itself sees all of them.
    """

    keep: float = 1.0

    @property
    def outside(self) -> object:
        """What a generated token reads besides the answer's buffers; None for nothing."""
        return None

    @abstractmethod
    def loaded(self, chosen: list[CachedBlock]) -> list[CachedBlock]:
        """Return those of a layer's chosen blocks that are brought into its buffer."""

    @abstractmethod
    def attend(
        self,
        layer: int,
        query: Tensor,
        buffer: LayerBuffer,
        at: int | Tensor,
        table: Table,
        scaling: float,
    ) -> Tensor:
        """Compute the attention of tokens that stand in the buffer from slot `at` on.

        Args:
            layer: its number.
            query: `[1, H, n, D]`, before RoPE.
            buffer: the layer's, with the tokens' own keys and values.
            at: the first token's slot.
            table: the queries' rotation.
            scaling: of the logits.

        Returns:
            `[1, n, H, D]`.
        """


class Retrieved(Past):
    """The blocks that each layer chose, unpacked into its buffer (ReKV, arXiv 2503.00540).

    Args:
        keep: share of their visual tokens that the answer is generated from, those that the prompt
            attends to most; the prompt itself sees all of them.
    """

    def __init__(self, keep: float = 1.0) -> None:
        self.keep = keep

    def loaded(self, chosen: list[CachedBlock]) -> list[CachedBlock]:
        """Return all of them."""
        return chosen

    def attend(
        self,
        layer: int,
        query: Tensor,
        buffer: LayerBuffer,
        at: int | Tensor,
        table: Table,
        scaling: float,
    ) -> Tensor:
        """Attend to the buffer alone."""
        return buffer_attention(query, buffer.key, buffer.value, at, scaling, table)
