"""Rows of results: run the steps, keep what fails as a row too, write JSON and Markdown."""

from __future__ import annotations

import json
import platform
import time
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.setup import Sizes

Row = dict[str, Any]  # name, value, unit; bar and ok where there is a bar
Step = tuple[str, float, Callable[[], Iterable[Row]]]  # name, seconds it may take, what to run
_PACKAGES = ("torch", "triton", "transformers", "numpy", "flash-attn")


class Report:
    """What was found so far. right: whether every check passed and no step failed."""

    def __init__(self, sizes: Sizes, budget: float) -> None:
        self.machine = machine(sizes)
        self.rows: list[Row] = []
        self.right = True
        self._until = time.monotonic() + budget
        self._dry = sizes.dry

    def run(self, steps: Iterable[Step]) -> None:
        """Run steps while there is time; a step that fails becomes a row and does not stop."""
        for name, cost, step in steps:
            if time.monotonic() + cost > self._until:
                self._add({"name": name, "value": None, "unit": "left out: no time", "ok": None})
                continue
            try:
                for row in step():
                    self._add(row)
            except Exception as error:
                traceback.print_exc()
                self.right = False
                text = f"failed: {type(error).__name__}: {error}"[:300]
                self._add({"name": name, "value": None, "unit": text, "ok": False})

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        if row.get("check") and not row["ok"]:
            self.right = False
        print(line(row), flush=True)

    def write(self, folder: Path | None) -> None:
        """Write `gpu-<name>.json` and `.md` into a folder, or nothing."""
        if self._dry:
            print("dry run: these are no measurements")
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        slug = "dry-run" if self._dry else "-".join(str(self.machine["gpu"]).lower().split())
        result = {"machine": self.machine, "dry_run": self._dry, "rows": self.rows}
        path = folder / f"gpu-{slug}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text(self.markdown())
        print(f"written: {path}")

    def markdown(self) -> str:
        """The table, with the machine above it."""
        kind = "Dry run: toy sizes on a CPU, no measurements.\n\n" if self._dry else ""
        about = ", ".join(f"{name} {value}" for name, value in self.machine.items() if value)
        rows = "\n".join("| " + " | ".join(cells(row)) + " |" for row in self.rows)
        return f"{kind}{about}\n\n| what | measured | bar | |\n|---|---|---|---|\n{rows}\n"


def row(name: str, value: float, unit: str, bar: float | None = None, least: bool = True) -> Row:
    """A measured row; `bar` is the least it should be, or the most."""
    if bar is None:
        return {"name": name, "value": float(value), "unit": unit}
    ok = value >= bar if least else value <= bar
    sign = ">=" if least else "<="
    return {"name": name, "value": float(value), "unit": unit, "bar": f"{sign} {bar:g}", "ok": ok}


def cells(row: Row) -> tuple[str, str, str, str]:
    """Name, value with unit, bar, and whether it holds."""
    value = row["value"]
    number = "" if value is None else f"{value:.4g} " if isinstance(value, float) else f"{value} "
    verdict = {True: "ok", False: "NO", None: ""}[row.get("ok")]
    return row["name"], f"{number}{row.get('unit', '')}".strip(), str(row.get("bar", "")), verdict


def line(row: Row) -> str:
    """A row for the screen."""
    name, value, bar, verdict = cells(row)
    return f"{name:<58} {value:<28} {bar:<12} {verdict}".rstrip()


def machine(sizes: Sizes) -> Row:
    """Hardware and versions that every figure stands beside."""
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
