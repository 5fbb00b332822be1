"""The process that measures: runs the steps and records at once what each of them finds."""

from __future__ import annotations

import gc
import json
import math
import platform
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.report import Row, Step, failed
from benchmarks.gpu.setup import Sizes, setup

_PACKAGES = ("torch", "triton", "transformers", "numpy", "flash-attn")
Say = Callable[[dict[str, Any]], None]


def main(found: Path, numbers: Sequence[int], budget: float, *, dry: bool) -> int:
    """Run the steps with these numbers, within `budget` seconds."""
    until = time.monotonic() + budget
    with found.open("a") as file, torch.inference_mode():

        def say(what: dict[str, Any]) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        sizes = setup(dry=dry)
        from benchmarks.gpu import correctness, model, speed

        steps = [
            *correctness.steps(sizes),
            *speed.steps(sizes),
            *model.steps(sizes, lambda: until - time.monotonic()),
        ]
        plan = [(i, steps[i][0]) for i in numbers if i < len(steps)]
        say({"machine": machine(sizes), "plan": plan})
        return work(steps, numbers, until, say)


def work(steps: Sequence[Step], numbers: Sequence[int], until: float, say: Say) -> int:
    """Run steps with these numbers while there is time; a failed one becomes a row of the results.

    Returns:
        0, or 3 where the device is lost to this process.
    """
    for number, (name, cost, step) in enumerate(steps):
        if number not in numbers:
            continue
        if time.monotonic() + cost > until:
            say({"row": {"name": name, "value": None, "unit": "left out: no time", "ok": None}})
            continue
        say({"begin": number, "name": name, "limit": 3 * cost + 30})
        started = time.monotonic()
        try:
            for row in step():
                say({"row": _finite(row)})
        except Exception as error:
            traceback.print_exc()
            say({"row": failed(name, error)})
        gc.collect()
        if not _alive():
            return 3
        say({"took": time.monotonic() - started})
    say({"done": True})
    return 0


def _alive() -> bool:
    """Whether the GPU still takes work from this process."""
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.zeros(1, device="cuda").add_(1).item()
    except RuntimeError:
        traceback.print_exc()
        return False
    return True


def _finite(row: Row) -> Row:
    """JSON has no NaN."""
    value = row["value"]
    if value is None or math.isfinite(value):
        return row
    return row | {"value": None, "unit": f"{value} {row.get('unit', '')}".strip()}


def machine(sizes: Sizes) -> Row:
    """Hardware and versions, which are written beside every figure."""
    found: Row = {"gpu": None, "python": platform.python_version()}
    if sizes.device.type == "cuda":
        about = torch.cuda.get_device_properties(sizes.device)
        found |= {
            "gpu": about.name,
            "capability": f"{about.major}.{about.minor}",
            "memory_gb": round(about.total_memory / 1e9, 1),
            "processors": about.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
