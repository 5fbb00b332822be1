"""Where a model's weights lie: a recorded step reads them there and nowhere else."""

from __future__ import annotations

from itertools import chain

from torch import Tensor, nn

Place = tuple[object, ...]


def places_of(*modules: nn.Module) -> tuple[Place, ...]:
    """Address, type and shape of every parameter and buffer, and whether it is to be trained: PEFT
    changes that where it switches an adapter on or off. Weights that were copied into the same
    memory are at the same place; those that were put in their stead, or moved, are not.
    """
    return tuple(
        _place(tensor)
        for module in modules
        for tensor in chain(module.parameters(), module.buffers())
    )


def _place(tensor: Tensor) -> Place:
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # a tensor made of others, as some quantisations have it
        address = id(tensor)
    return address, tensor.device, tensor.dtype, tuple(tensor.shape), tensor.requires_grad
