"""One decode step recorded as a CUDA graph: replaying it costs one launch instead of hundreds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

log = logging.getLogger("mmkv")

Place = tuple[object, ...]


class Recorder(Protocol):
    """Records a step without running it."""

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        """Record a step.

        Returns:
            what does the step's work again on the same memory, and returns the same tensor; None
            if it cannot be recorded: then nothing has changed.
        """


class CudaGraphs:
    """Records steps as CUDA graphs until one cannot be recorded, which is logged once.

    Attributes:
        works: whether none has failed.
    """

    def __init__(self) -> None:
        self.works = True

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        """Record a step; see `Recorder`."""
        if not self.works:
            return None
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # other threads may allocate and copy meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                out = step()
        except Exception as error:
            self.works = False
            torch.cuda.set_stream(stream)  # torch leaves the capture's own in place
            reason = (str(error).splitlines() or [""])[0][:200]
            log.warning(
                "answers are generated without CUDA graphs, which is slower: %s: %s",
                type(error).__name__,
                reason,
            )
            return None

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay


def recorder_for(devices: set[torch.device]) -> Recorder | None:
    """Return what records steps of a model on these devices; None unless it is one CUDA device."""
    if len(devices) != 1 or next(iter(devices)).type != "cuda":
        return None
    return CudaGraphs()


def weight_places(*modules: nn.Module) -> tuple[Place, ...]:
    """Return address, device, type, shape and `requires_grad` of every parameter and buffer.

    PEFT changes `requires_grad` when it switches an adapter on or off. Weights that were copied
    into the same memory are at the same place; those that replaced others, or moved, are not.
    """
    return tuple(
        _place(tensor)
        for module in modules
        for tensor in chain(module.parameters(), module.buffers())
    )


def _place(tensor: Tensor) -> Place:
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # a tensor made of others, as in some quantisations
        address = id(tensor)
    return address, tensor.device, tensor.dtype, tuple(tensor.shape), tensor.requires_grad
