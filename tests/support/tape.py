"""A stand-in for CUDA graphs on a CPU: records a step's operations and does them again.

Like a graph it knows tensors' memory only: what the step's Python read or counted is as it was
when the step was recorded, and recording leaves the memory as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class Tape(TorchDispatchMode):
    """Operations in the order in which they were done."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "the host read a number from a tensor"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def play(self, result: Tensor) -> Tensor:
        """Do it all again; what `result` was then is now this."""
        now: dict[int, Tensor] = {}

        def current(item: Any) -> Any:
            return now.get(id(item), item) if isinstance(item, Tensor) else item

        for func, args, kwargs, out in self.calls:
            fresh = func(*tree_map(current, args), **tree_map(current, kwargs))
            for old, new in zip(tree_leaves(out), tree_leaves(fresh), strict=True):
                if isinstance(old, Tensor):
                    now[id(old)] = new
        return now[id(result)]


class Recorder:
    """Records with tapes. records, replays: how often."""

    def __init__(self) -> None:
        self.records = self.replays = 0

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.records += 1
        slot = step.__self__._pass.buffers  # type: ignore[attr-defined]
        memory = [slot.token]
        memory += [t for layer in slot.layers for t in (layer.key, layer.value)]
        memory += [t for clock in slot._clocks.values() for t in (clock.index, clock.position)]
        if slot.carry is not None:
            memory += slot.carry.tensors()
        if slot.local is not None:
            for clock in slot.local.clocks.values():
                memory += [clock.count, clock.position]
        held = [t.clone() for t in memory]
        with Tape() as tape:
            out = step()
        for tensor, before in zip(memory, held, strict=True):
            tensor.copy_(before)

        def replay() -> Tensor:
            self.replays += 1
            return tape.play(out)

        return replay


def install(patch: Any, vlm: Any) -> Recorder:
    """Let a model's answers be generated from tapes."""
    recorder = Recorder()
    patch.setattr(vlm.buffers, "recorder", recorder)
    patch.setattr("mmkv.kernels.buffer_attention.naive._host_knows", lambda at: False)
    patch.setattr("mmkv.kernels.packed_attention.naive._nothing", lambda visible: False)
    return recorder


def no_graph(streams: list[str]) -> Any:
    """What a device does that cannot record: it leaves a stream of its own, and says so."""
    streams.append("the capture's")
    raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
