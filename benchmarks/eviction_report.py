"""What `eviction.py` asked, in tables and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import RESULTS, machine, save

if TYPE_CHECKING:
    from benchmarks.eviction_asked import Asked
    from benchmarks.eviction_cells import Cell

Case = tuple[str, int]  # kind, delay


def summary(asked: Sequence[Asked], cases: Sequence[Sequence[Case]]) -> list[dict[str, Any]]:
    """A row for every configuration, in the order they were asked.

    Args:
        cases: kind and delay of every question, by stream.
    """
    whole = {a.world: a.exact for a in asked if a.cell.keep == 1 and a.cell.packed is None}
    rows = []
    for cell in dict.fromkeys(a.cell for a in asked):
        own = [a for a in asked if a.cell == cell and a.world in whole]
        if own:
            rows.append(_row(cell, own, whole, cases))
    return rows


def _row(
    cell: Cell, own: Sequence[Asked], whole: dict[int, list[int]], cases: Sequence[Sequence[Case]]
) -> dict[str, Any]:
    exact = np.concatenate([a.exact for a in own])
    base = np.concatenate([whole[a.world] for a in own])
    asked = [case for a in own for case in cases[a.world]]
    lost = base - exact
    return {
        "name": cell.name,
        "policy": cell.policy,
        "keep_ratio": cell.keep,
        "merging": cell.merge,
        "focus": cell.focus,
        "bits": cell.packed,
        "protected": list(cell.protected),
        "questions": len(exact),
        "exact": _percent(exact),
        "lost": _percent(lost),
        "lost_error": round(float(196 * lost.std() / np.sqrt(len(lost))), 1),
        "kept": round(100 * float(np.mean([a.kept for a in own])), 1),
        "bytes_per_frame": round(float(np.mean([a.nbytes for a in own]))),
        "by_kind": _by(exact, [kind for kind, _ in asked]),
        "by_delay": _by(exact, [delay for _, delay in asked]),
    }


def _by(exact: np.ndarray, names: Sequence[Any]) -> dict[str, float]:
    return {
        str(name): _percent(exact[[other == name for other in names]])
        for name in dict.fromkeys(names)
    }


def _percent(values: np.ndarray) -> float:
    return round(100 * float(values.mean()), 1)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows in Markdown, the best of each ratio first."""
    order = sorted(rows, key=lambda r: (-r["keep_ratio"], r["bits"] is not None, -r["exact"]))
    kinds, delays = rows[0]["by_kind"], rows[0]["by_delay"]
    head = ["policy", "merging", "focus", "kept, %", "bytes per frame", "questions", "exact, %",
            "points lost (± 95 %)", *(f"{d} frames ago" for d in delays), *kinds]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in order:
        packed = "" if row["bits"] is None else " K{:g}/V{:g}".format(*row["bits"])
        if row["protected"]:
            packed += f", layers {' and '.join(map(str, row['protected']))} K4/V4"
        cells = [
            f"`{row['policy']}`{packed}",
            "" if row["merging"] == "none" else row["merging"],
            "yes" if row["focus"] else "",
            f"{row['kept']:.1f}",
            f"{row['bytes_per_frame']:,}",
            f"{row['questions']:,}",
            f"{row['exact']:.1f}",
            f"{row['lost']:+.1f} ± {row['lost_error']:.1f}",
            *(f"{row['by_delay'][d]:.0f}" for d in delays),
            *(f"{row['by_kind'][k]:.0f}" for k in kinds),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot exact answers against the share kept, by policy, and by merging for the best one."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5.2), sharey=True)
    plain = [r for r in rows if r["bits"] is None]
    whole = next(r["exact"] for r in plain if r["keep_ratio"] == 1)
    alone = [r for r in plain if r["merging"] == "none" and r["keep_ratio"] < 1]
    for name, focus in dict.fromkeys((r["policy"], r["focus"]) for r in alone):
        own = [r for r in alone if (r["policy"], r["focus"]) == (name, focus)]
        label = f"{name}, focus" if focus else name
        _line(axes[0], own, whole, label, "--" if focus else "-")
    folded = [r for r in plain if r["policy"] == "diverse" and not r["focus"]]
    for merge in dict.fromkeys(r["merging"] for r in folded):
        _line(axes[1], [r for r in folded if r["merging"] == merge], whole, merge, "-")
    for axis, title in zip(axes, ("by policy, nothing merged", "diverse, by merging"), strict=True):
        axis.set_xscale("log")
        axis.set_xticks([100, 50, 20, 10, 5], ["100", "50", "20", "10", "5"])
        axis.minorticks_off()
        axis.invert_xaxis()
        axis.set_xlabel("visual tokens kept, %")
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    axes[0].set_ylabel("exact answers, %")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _line(axis: Any, own: Sequence[dict[str, Any]], whole: float, label: str, style: str) -> None:
    points = sorted([(100.0, whole), *((100 * r["keep_ratio"], r["exact"]) for r in own)])
    axis.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=label)


def write_report(
    asked: Sequence[Asked], cases: Sequence[Sequence[Case]], name: str | None, **facts: Any
) -> list[dict[str, Any]]:
    """Print, and write results/NAME.json, .md and .svg where there is a name."""
    rows = summary(asked, cases)
    for row in rows:
        print(
            f"{row['name']:36} {row['questions']:5} questions  exact {row['exact']:5.1f}  "
            f"lost {row['lost']:+5.1f} ± {row['lost_error']:.1f}  kept {row['kept']:5.1f} %  "
            f"{row['bytes_per_frame']:7,} bytes per frame",
            flush=True,
        )
    if name is not None:
        save(name, {**facts, "cells": rows})
        made = machine()
        where = f"`python -m benchmarks.eviction --save`, mmkv-tiny, {made['processor']}."
        text = f"# Eviction and merging\n\n{where}\n\n{table(rows)}\n"
        (RESULTS / f"{name}.md").write_text(text)
        plot(rows, RESULTS / f"{name}.svg")
    return rows
