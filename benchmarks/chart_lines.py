"""Colours of the charts, and lines labelled where they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Theme:
    """Colours for one kind of page.

    Attributes:
        lines: by name, after Okabe and Ito, distinguishable with any colour vision.
    """

    name: str
    ink: str
    muted: str
    grid: str
    lines: dict[str, str]


LIGHT = Theme(
    "light", "#1f2328", "#59636e", "#d8dee4",
    {"blue": "#0072b2", "orange": "#c65300", "green": "#00805c", "purple": "#a8427f",
     "grey": "#6e7781"},
)  # fmt: skip
DARK = Theme(
    "dark", "#e6e8eb", "#a5adb8", "#444b56",
    {"blue": "#5cb8f0", "orange": "#f29b52", "green": "#3fc79a", "purple": "#dd93bf",
     "grey": "#98a1ac"},
)  # fmt: skip
THEMES = (LIGHT, DARK)


@dataclass(frozen=True)
class Line:
    """One line: its label and values, its colour, and matplotlib's style."""

    label: str
    values: Sequence[float]
    colour: str
    style: str
    bold: bool = False


def log_lines(
    axis: Any, at: Sequence[float], lines: Sequence[Line], theme: Theme, shown: str
) -> None:
    """Lines over a logarithmic axis, each labelled where it ends."""
    for line in lines:
        axis.plot(
            at, line.values, line.style, marker="o", color=line.colour, markersize=5,
            linewidth=2.8 if line.bold else 1.9,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(at, [f"{x:,}" for x in at])
    axis.minorticks_off()
    if at[0] > at[-1]:
        axis.invert_xaxis()
    axis.grid(axis="y", color=theme.grid, linewidth=0.8)
    ends = apart([line.values[-1] for line in lines], 0.052 * span(lines))
    for line, end in zip(lines, ends, strict=True):
        axis.annotate(
            f"{shown.format(line.values[-1])}  {line.label}", (at[-1], end), (10, 0),
            textcoords="offset points", color=line.colour, va="center", annotation_clip=False,
            weight="bold" if line.bold else "normal", fontsize=9.5,
        )  # fmt: skip


def span(lines: Sequence[Line]) -> float:
    """Height of the axis: percent, or milliseconds."""
    largest = max(max(line.values) for line in lines)
    return 100.0 if largest > 50 else 25.0


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Where labels of these values stand: as near as possible, at least `gap` apart."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = [values[i] for i in order]
    for _ in range(200):
        for i in range(1, len(placed)):
            short = gap - (placed[i] - placed[i - 1])
            if short > 1e-9:
                placed[i - 1] -= short / 2
                placed[i] += short / 2
    found = [0.0] * len(values)
    for place, i in zip(placed, order, strict=True):
        found[i] = place
    return found
