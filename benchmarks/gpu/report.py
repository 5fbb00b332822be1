"""Rows of results: on the screen, and as JSON and Markdown."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]  # name, value, unit; bar and ok where there is a bar; check where it must hold
Step = tuple[str, float, Callable[[], Iterable[Row]]]  # name, seconds it may take, what to run


class Report:
    """What was found so far.

    Args:
        folder: where the results go, or None.

    Attributes:
        right: whether every check passed and nothing failed.
        machine: hardware and versions.
        steps: names and seconds of what was run.
        stopped: whether no further step is to begin.
    """

    def __init__(self, folder: Path | None, *, dry: bool) -> None:
        self.rows: list[Row] = []
        self.right = True
        self.stopped = False
        self.machine: Row = {"gpu": None}
        self.steps: list[Row] = []
        self._folder, self._dry = folder, dry
        self._lock = threading.RLock()

    def add(self, row: Row) -> None:
        """Add a row."""
        broken = row.get("check") or row["value"] is None
        with self._lock:
            self.rows.append(row)
            if broken and row.get("ok") is False:
                self.right = False
            print(line(row), flush=True)

    def took(self, name: str, seconds: float) -> None:
        """Record how long a step ran."""
        self.steps.append({"name": name, "seconds": round(seconds, 1)})

    def write(self) -> Path | None:
        """Write `gpu-<name>.json` and `.md` into the folder, if any; returns where the JSON is."""
        if self._folder is None:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        gpu = str(self.machine["gpu"] or "unknown")
        slug = "dry-run" if self._dry else "-".join(gpu.lower().split())
        result = {
            "machine": self.machine, "dry_run": self._dry, "rows": self.rows, "steps": self.steps,
        }  # fmt: skip
        path = self._folder / f"gpu-{slug}.json"
        with self._lock:
            path.write_text(json.dumps(result, indent=1) + "\n")
            path.with_suffix(".md").write_text(self.markdown())
        return path

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


def check(name: str, found: float, bar: float, unit: str = "error / signal") -> Row:
    """A row that has to hold."""
    return {
        "name": f"right: {name}", "value": float(found), "unit": unit, "bar": f"<= {bar:g}",
        "ok": bool(found <= bar), "check": True,
    }  # fmt: skip


def missing(name: str, why: str) -> Row:
    """A row for something that is not available here, which is not a failure."""
    return {"name": name, "value": None, "unit": why, "ok": None}


def failed(name: str, error: Exception) -> Row:
    """A row for a failure."""
    first = (str(error).splitlines() or [""])[0]
    text = f"failed: {type(error).__name__}: {first}"[:300]
    return {"name": name, "value": None, "unit": text, "ok": False}


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
