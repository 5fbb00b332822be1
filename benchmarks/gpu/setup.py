"""Sizes and clocks: a 7B language model on a GPU, or toys on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
ROTATED = 8  # layers whose buffers are used in turn, so that none stays in the L2 cache


@dataclass(frozen=True)
class Sizes:
    """What is measured; `heads`, `kv_heads`, `dim` and `layers` are those of a 7B Qwen2."""

    device: torch.device
    dry: bool
    dtype: torch.dtype
    layers: int
    heads: int
    kv_heads: int
    dim: int
    group: int  # tokens of a packed group
    lengths: tuple[int, ...]  # tokens of history
    chunk: int
    local: int

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Normal numbers on the device."""
        return torch.randn(*shape, device=self.device, dtype=dtype or self.dtype)


def setup(*, dry: bool) -> Sizes:
    """The sizes for this machine."""
    torch.manual_seed(0)
    if dry:
        cpu = torch.device("cpu")
        return Sizes(cpu, True, torch.float16, 2, 4, 2, 32, 32, (64,), 16, 24)
    cuda = torch.device("cuda", torch.cuda.current_device())
    lengths = (32 << 10, 128 << 10, 1 << 20)
    return Sizes(cuda, False, torch.bfloat16, 28, 28, 4, 128, 512, lengths, 1568, 12544)


def seconds(
    sizes: Sizes, calls: Sequence[Callable[[], object]], rounds: int = 15, *, graph: bool = True
) -> float:
    """Median seconds of one of the calls, run one after another.

    Give as many calls, each with memory of its own, as do not fit in the L2 cache together. On a
    GPU they are one CUDA graph where they can be captured, so that launching costs nothing; with
    `graph=False` launching counts, for calls that wait for the device in between.
    """
    for call in calls:
        call()
    if sizes.device.type != "cuda":
        started = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - started) / len(calls)
    torch.cuda.synchronize()

    def every() -> None:
        for call in calls:
            call()

    replay: Callable[[], object] = every
    if graph:
        try:
            replay, _ = captured(every)
        except RuntimeError:  # not all baselines can be captured
            torch.cuda.synchronize()
    taken = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3 / len(calls))
    return statistics.median(taken)


def captured(step: Callable[[], T]) -> tuple[Callable[[], object], T]:
    """What replays a step as a CUDA graph, and what the step returned, which replaying fills.

    Raises:
        RuntimeError: the step cannot be captured.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            out = step()
    except BaseException:
        torch.cuda.set_stream(stream)  # torch leaves the capture's own in place
        raise
    return graph.replay, out


def wait(sizes: Sizes) -> None:
    """Wait until the device has finished its work."""
    if sizes.device.type == "cuda":
        torch.cuda.synchronize()


def rmse_ratio(found: Tensor, wanted: Tensor) -> float:
    """Root mean square error relative to the wanted numbers' root mean square."""
    wanted = wanted.double()
    error = (found.double() - wanted).square().mean().sqrt()
    return float(error / wanted.square().mean().sqrt().clamp_min(1e-30))
