"""A head whose logits are capped."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Capped(nn.Module):
    """A head whose logits are kept between -cap and cap by a hyperbolic tangent.

    Args:
        head: the model's own.
        cap: the bound.
    """

    def __init__(self, head: nn.Module, cap: float) -> None:
        super().__init__()
        self.head = head
        self.cap = cap

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute logits `[..., V]` of hidden states `[..., D]`."""
        logits: Tensor = self.head(hidden)
        return torch.tanh(logits / self.cap) * self.cap
