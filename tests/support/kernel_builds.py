"""Compile the Triton kernels for GPUs that are not here: no GPU and no driver is needed.

`launches` runs a kernel's own wrapper on CPU tensors with a stand-in for the driver: every launch
is compiled for the wanted architecture, exactly as specialised, and nothing runs.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

ARCHITECTURES = (80, 89, 90, 120)
SHARED = {80: 163, 89: 99, 90: 227, 120: 99}  # KB that one program may use
_BIN = Path(triton.__file__).parent / "backends/nvidia/bin"


class _Driver:
    def __init__(self, arch: int) -> None:
        self._target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return self._target.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@dataclass
class Launch:
    """One compiled kernel launch."""

    name: str
    arch: int
    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]

    @property
    def shared(self) -> int:
        """Bytes of shared memory of one program."""
        return int(self.kernel.metadata.shared)

    @cached_property
    def usage(self) -> dict[str, int]:
        """What ptxas says: REG, STACK, SHARED, LOCAL and so on."""
        text = self._tool("cuobjdump", "-res-usage")
        return {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", text)}

    @cached_property
    def sass(self) -> list[str]:
        """Machine instructions and labels."""
        text = self._tool("nvdisasm", "-c")
        wanted = re.compile(r"\s*/\*[0-9a-f]{4,}\*/|\.L_x_\d+:")
        return [line.strip() for line in text.splitlines() if wanted.match(line)]

    def _tool(self, tool: str, option: str) -> str:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
            cubin.write(self.kernel.asm["cubin"])
            cubin.flush()
            done = subprocess.run(
                [_BIN / tool, option, cubin.name], capture_output=True, text=True, check=True
            )
        return done.stdout


def launches(arch: int, call: Callable[[], object]) -> list[Launch]:
    """What `call` would launch on a GPU of this compute capability, compiled for it."""
    done: list[Launch] = []
    original = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = original(self, *args, grid=grid, warmup=True, **kwargs)
        names = dict(zip(self.arg_names, args, strict=False)) | kwargs
        shape = grid(names) if callable(grid) else grid
        done.append(Launch(self.fn.__name__, arch, kernel, tuple(shape), names))
        return kernel

    held = driver._active
    driver.set_active(_Driver(arch))
    try:
        with (
            mock.patch.object(JITFunction, "run", run),
            mock.patch("torch.empty", torch.zeros),  # nothing fills what torch reads next
            mock.patch("mmkv.kernels.configs.capability", return_value=arch),
        ):
            call()
    finally:
        driver._active = held
    return done


def loops(sass: list[str]) -> list[list[str]]:
    """Innermost loops: the instructions between a label and a branch back to it."""
    labels, spans = {}, []
    for i, line in enumerate(sass):
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = i
        elif (jump := re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)) and jump[1] in labels:
            spans.append((labels[jump[1]], i))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [[x for x in sass[a : b + 1] if "/*" in x] for a, b in inner]
