"""Which implementation runs where: Triton on NVIDIA GPUs that have it, torch everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkv.kernels import dispatch
from mmkv.kernels.dispatch import has_triton, runs_triton, why_not

GPU = torch.device("cuda", 0)


def on_gpu(dtype: torch.dtype = torch.bfloat16) -> Any:
    return SimpleNamespace(is_cuda=True, device=GPU, dtype=dtype)


@pytest.fixture(autouse=True)
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU of compute capability 9.0, with Triton."""
    dispatch._why_not_cuda.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(dispatch, "find_spec", lambda name: object())
    yield
    dispatch._why_not_cuda.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("head_dim", [None, 16, 80, 128])
def test_a_gpu_with_triton_runs_it(dtype: torch.dtype, head_dim: int | None) -> None:
    assert why_not(GPU) is None
    assert runs_triton(on_gpu(dtype), head_dim)


@pytest.mark.parametrize("head_dim", [24, 100, 8])
def test_head_sizes_that_are_no_multiple_of_16_run_in_torch(head_dim: int) -> None:
    assert not runs_triton(on_gpu(), head_dim)


def test_double_precision_runs_in_torch() -> None:
    assert not runs_triton(on_gpu(torch.float64))


def test_a_cpu_runs_torch_and_says_why() -> None:
    assert not has_triton(torch.zeros(1))
    assert why_not(torch.device("cpu")) == "not a CUDA device"


def test_without_triton_torch_runs_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    assert why_not(GPU) == "triton is not installed"
    assert not runs_triton(on_gpu(), 128)
    assert not has_triton(on_gpu(torch.uint8))


def test_gpus_older_than_ampere_run_torch_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert why_not(GPU) == "compute capability 7.5 is below 8.0"
    assert not runs_triton(on_gpu(), 128)


def test_amd_gpus_run_torch_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "AMD" in str(why_not(GPU))
    assert not runs_triton(on_gpu(), 128)


def test_codes_in_host_memory_are_unpacked_on_the_gpu_of_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")
    from mmkv.kernels import unpack_rotate as op
    from mmkv.kernels.pack import Form, Params
    from mmkv.kernels.unpack_rotate import triton

    switched: list[torch.device] = []

    def on_device(tensor: Tensor) -> nullcontext[None]:
        switched.append(tensor.device)
        return nullcontext()

    monkeypatch.setattr(op, "runs_triton", lambda *_: True)
    monkeypatch.setattr(op, "on_device", on_device)
    monkeypatch.setattr(triton, "unpack_rotate", lambda *given: given[-1])
    codes, at, rows = torch.zeros(64, dtype=torch.uint8), torch.zeros(1).long(), torch.zeros(4)
    params = Params(rows, rows, rows, rows)
    out = torch.empty(1, 4, 32, device="meta")  # stands for another GPU
    op.unpack_rotate(codes, at, [4], rows.long(), params, Form(4), None, out)
    assert switched == [out.device]
