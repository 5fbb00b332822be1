"""Two single-threaded processes train one model.

On a busy machine they wait for each other once per step; two threads of one process would wait at
every operation.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


def rank() -> int:
    """Return the number of this process; 0 when it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def workers() -> int:
    """Return how many processes train."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(parameters: list[nn.Parameter], number: float) -> float:
    """Average gradients, in place, and a number over the processes.

    Args:
        parameters: those that are trained have their gradients averaged.
        number: this process's own.

    Returns:
        the mean of the processes' numbers.
    """
    if workers() == 1:
        return number
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:  # a loss may have been empty in one process only
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    grads = [p.grad for p in trained if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in grads), torch.tensor([number])])
    dist.all_reduce(flat)
    flat /= workers()
    at = 0
    for grad in grads:
        grad.copy_(flat[at : at + grad.numel()].view_as(grad))
        at += grad.numel()
    return float(flat[-1])


def barrier() -> None:
    """Wait for the other processes."""
    if workers() > 1:
        dist.barrier()


def _start(number: int, count: int, meeting: str, job: Callable[..., None], args: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=count)
    try:
        job(args)
    finally:
        dist.destroy_process_group()


def launch(job: Callable[..., None], args: Any, count: int) -> None:
    """Run `job(args)` in `count` processes."""
    if count == 1:
        job(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        mp.spawn(_start, args=(count, meeting, job, args), nprocs=count)
