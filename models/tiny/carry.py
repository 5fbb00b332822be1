"""What a clip leaves behind in each layer of a hybrid model, kept so that gradients flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Carry:
    """A cache that replaces its tensors where those of transformers are written in place.

    It has the methods that the layers of Qwen3.5 call.

    Attributes:
        conv: last inputs of the convolutions, by layer, `[B, C, kernel]`.
        state: recurrent states, by layer, `[B, H, K, V]`.
        kv: keys (rotated) and values of full attention, by layer, `[B, H_kv, n, D]`.
    """

    def __init__(self) -> None:
        self.conv: dict[int, Tensor] = {}
        self.state: dict[int, Tensor] = {}
        self.kv: dict[int, tuple[Tensor, Tensor]] = {}

    def get_conv_state(self, layer: int, state_idx: int = 0) -> Tensor | None:
        """Return what the convolution of a layer has seen last."""
        return self.conv.get(layer)

    def get_recurrent_state(self, layer: int, state_idx: int = 0) -> Tensor | None:
        """Return a layer's recurrent state."""
        return self.state.get(layer)

    def is_recording_past(self, layer: int) -> bool:
        """Keep the layers from updating the state of the convolution in place."""
        return True

    def update_conv_state(self, new: Tensor, layer: int, conv_kernel_size: int) -> Tensor:
        """Add inputs `[B, C, n]` and return them behind those of before."""
        if layer in self.conv:
            new = torch.cat([self.conv[layer], new], dim=-1)
        self.conv[layer] = new[..., -conv_kernel_size:]
        return new

    def update_recurrent_state(self, new: Tensor, layer: int) -> None:
        """Replace a layer's recurrent state."""
        self.state[layer] = new

    def update(self, keys: Tensor, values: Tensor, layer: int, **_: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values `[B, H_kv, n, D]` and return all."""
        if layer in self.kv:
            keys = torch.cat([self.kv[layer][0], keys], dim=2)
            values = torch.cat([self.kv[layer][1], values], dim=2)
        self.kv[layer] = keys, values
        return keys, values

    def branch(self, count: int, states_of: Tensor) -> Carry:
        """Let `count` questions go on from every clip, each for itself.

        Args:
            count: questions about each of the `B` clips.
            states_of: int64 `[B * count]`, the clip whose states a question goes on from; keys
                and values are always those of its own.
        """
        twin = Carry()
        twin.conv = {i: x[states_of] for i, x in self.conv.items()}
        twin.state = {i: x[states_of] for i, x in self.state.items()}
        twin.kv = {
            i: (k.repeat_interleave(count, 0), v.repeat_interleave(count, 0))
            for i, (k, v) in self.kv.items()
        }
        return twin

    def left(self) -> Carry:
        """Return the states alone, without gradients, for scenes that go on from them."""
        rest = Carry()
        rest.conv = {i: x.detach() for i, x in self.conv.items()}
        rest.state = {i: x.detach() for i, x in self.state.items()}
        return rest
