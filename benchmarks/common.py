"""What the measurements share: the machine in words, synthetic frames, a table."""

from __future__ import annotations

import ctypes
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

import mmkv

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Hardware and versions, which are written beside every result."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=True),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "mmkv": mmkv.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def frames(count: int, start: int = 0, fps: float = 1.0) -> Iterator[tuple[float, Any]]:
    """Moving squares with their times, uint8 `[64, 64, 3]`, made as they are read."""
    generator = torch.Generator().manual_seed(7)
    palette = torch.randint(0, 256, (97, 3), dtype=torch.uint8, generator=generator)
    for i in range(start, start + count):
        frame = torch.full((64, 64, 3), 40, dtype=torch.uint8)
        top, left = (i * 7) % 44, (i * 13) % 44
        frame[top : top + 20, left : left + 20] = palette[i % 97]
        yield i / fps, frame


def chunks(count: int, size: int, start: int = 0) -> Iterator[tuple[torch.Tensor, list[float]]]:
    """The same frames as `[size, 64, 64, 3]` with their times."""
    held: list[tuple[float, Any]] = []
    for pair in frames(count, start):
        held.append(pair)
        if len(held) == size:
            yield torch.stack([f for _, f in held]), [s for s, _ in held]
            held = []


def timed(work: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def rss() -> int:
    """Resident bytes of this process."""
    return int(psutil.Process().memory_info().rss)


def show(title: str, rows: list[tuple[str, str, str]]) -> None:
    """Print rows of name, figure and bar."""
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    sys.stdout.flush()


def save(name: str, result: dict[str, Any]) -> None:
    """Write a result, with the machine it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")


class _MallInfo(ctypes.Structure):
    """What glibc's `mallinfo2` tells."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def in_use() -> tuple[int, int]:
    """Bytes in use in the C library's heaps, and in its own mappings; zeros without glibc."""
    tell = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if tell is None:
        return 0, 0
    tell.restype = _MallInfo
    told = tell()
    return int(told.uordblks), int(told.hblkhd)
