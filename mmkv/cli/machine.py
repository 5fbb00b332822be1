"""What this machine has: versions, devices, and what runs on them.

torch is imported only where there may be a GPU to ask about; that takes seconds.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmkv.config.units import counted

PACKAGES = ("mmkv-video", "torch", "transformers", "accelerate", "triton", "av")
OPTIONAL = {  # package: the module it brings, and what is missing without it
    "decord": ("decord", "reading files with decord (pip install 'mmkv-video[decord]')"),
    "gradio": ("gradio", "the browser demo (pip install 'mmkv-video[demo]')"),
    "opencv-python-headless": ("cv2", "webcams (pip install opencv-python-headless)"),
    "scenedetect-headless": (
        "scenedetect",
        "`mmkv caption --scenes` (pip install 'mmkv-video[scenes]')",
    ),
    "ray": ("ray", "`mmkv caption --ray`: several machines (pip install 'mmkv-video[ray]')"),
    "pyarrow": ("pyarrow", "`mmkv caption --format parquet` (pip install pyarrow)"),
}
NO_GPU = {
    True: "torch sees none, so everything runs on the CPU; if this machine has one, its driver "
    "is missing or too old",
    False: "this build of torch is for CPUs only; if this machine has an NVIDIA GPU, install a "
    "CUDA build (https://pytorch.org/get-started/locally)",
}
NO_TRITON = "the cache kernels run in torch on every device (pip install triton)"
IN_TORCH = "cache kernels in torch"


def installed(name: str) -> str | None:
    """Return a package's version; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def for_gpus() -> bool | None:
    """Return whether torch was built for GPUs, as its version file says; None: it does not say."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    builds = re.findall(r"^(?:cuda|hip)\b.*= *(\S+)$", text, flags=re.MULTILINE)
    return None if not builds else builds != ["None"] * len(builds)


def may_have_gpu() -> bool:
    """Return False only where torch is certain to see no GPU, whatever else it would say."""
    if platform.system() == "Darwin":
        return True  # Apple's
    if for_gpus() is False:
        return False
    if Path("/dev/kfd").exists():
        return True  # AMD's
    try:
        ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return False  # no driver
    return True


def has_cuda() -> bool:
    """Return whether torch can use a GPU through CUDA or ROCm."""
    if not may_have_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def missing() -> dict[str, str]:
    """Say what this machine lacks, and what to do where that matters."""
    found = {}
    if not has_cuda():
        found["GPU"] = NO_GPU[for_gpus() is not False]
    if platform.system() == "Linux" and find_spec("triton") is None:
        found["triton"] = NO_TRITON
    for name, (module, what) in OPTIONAL.items():
        if find_spec(module) is None:
            found[name] = what
    return found


def operations() -> list[str]:
    """List the operations on the cache that have a Triton kernel beside the one in torch."""
    import mmkv.kernels

    folders = [Path(folder) for folder in mmkv.kernels.__path__]
    return sorted(part.parent.name for folder in folders for part in folder.glob("*/triton.py"))


def devices() -> list[dict[str, Any]]:
    """List every device torch can use, and what the engine does on it."""
    found: list[dict[str, Any]] = [
        {"name": "cpu", "what": counted(os.cpu_count() or 1, "core"), "memory": None,
         "dtype": "float32", "runs": IN_TORCH}
    ]  # fmt: skip
    if not may_have_gpu():
        return found
    import torch

    for index in range(torch.cuda.device_count()):
        props = torch.cuda.get_device_properties(index)
        found.append({"name": f"cuda:{index}", "what": props.name, "memory": props.total_memory,
                      "dtype": "the checkpoint's", "runs": kernels(f"cuda:{index}")})  # fmt: skip
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "what": "Apple GPU (only with --device mps)", "memory": None,
                      "dtype": "the checkpoint's", "runs": IN_TORCH})  # fmt: skip
    return found


def kernels(device: str) -> str:
    """Say what the operations on the cache run in on a GPU, and why not in Triton."""
    import torch

    from mmkv.kernels.dispatch import why_not

    reason = why_not(torch.device(device))
    if reason is None:
        return "cache kernels in Triton (torch for float64 and unusual head sizes)"
    return f"{IN_TORCH} ({reason})"
