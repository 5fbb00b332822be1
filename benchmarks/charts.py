"""Charts of benchmarks/results/, as SVG for light and for dark pages.

    python -m benchmarks.charts                 writes docs/img/NAME-light.svg and NAME-dark.svg
    python -m benchmarks.charts --into FOLDER   writes them elsewhere

Nothing is measured here. The same results give the same bytes with the same matplotlib: no date is
written, and ids do not change. Every file carries the figures that it shows, as JSON in its
description, so that a chart can be compared with the results whichever matplotlib drew it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chart_lines import THEMES, Line, Theme, log_lines
from benchmarks.common import RESULTS

IMAGES = RESULTS.parents[1] / "docs" / "img"
WIDTH = 8.6  # inches

Figures = dict[str, Any]  # what a chart shows


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        height: in inches.
        left, right: where the axes begin and end, as shares of the width.
        figures: from the results it names.
        draw: the figures onto axes.
    """

    name: str
    results: tuple[str, ...]
    height: float
    left: float
    right: float
    figures: Callable[..., Figures]
    draw: Callable[[Any, Figures, Theme], None]


def read(name: str) -> dict[str, Any]:
    """A result as it was saved."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


# -- exact answers by the length of the stream ---------------------------------------------------

WAYS = {
    "handed over": ("the right frames alone", "grey"),
    "attention+1": ("attention, neighbours (default)", "blue"),
    "attention": ("attention", "green"),
    "mean-key": ("mean-key (ReKV)", "orange"),
    "window only": ("the newest 16 frames", "purple"),
    "uniform": ("8 frames spread evenly", "grey"),
}


def _lengths(needles: Figures) -> Figures:
    lengths = [int(name) for name in needles if name.isdigit()]
    exact = {way: [needles[str(n)][way]["exact"] for n in lengths] for way in WAYS}
    return {"frames": lengths, "exact": exact}


def _draw_lengths(axis: Any, figures: Figures, theme: Theme) -> None:
    lines = []
    for way, exact in figures["exact"].items():
        label, colour = WAYS[way]
        style = ":" if colour == "grey" else "-"
        lines.append(Line(label, exact, theme.lines[colour], style, bold=way == "attention+1"))
    log_lines(axis, figures["frames"], lines, theme, "{:.1f} %")
    axis.set_ylim(0, 100)
    axis.set_ylabel("Exact answers, %")
    axis.set_xlabel("Length of the stream, frames")


# -- exact answers by the share of tokens kept ---------------------------------------------------

POLICIES = {
    ("diverse", False): ("diverse (default)", "blue"),
    ("text-prior", True): ("text-prior with focus", "green"),
    ("temporal", False): ("temporal", "orange"),
    ("text-prior", False): ("text-prior", "green"),
    ("random", False): ("random", "grey"),
    ("snapkv", False): ("snapkv", "purple"),
}


def _kept(eviction: Figures) -> Figures:
    plain = [c for c in eviction["cells"] if c["bits"] is None and c["merging"] == "none"]
    whole = next(c["exact"] for c in plain if c["keep_ratio"] == 1)
    found = {}
    for policy, focus in POLICIES:
        own = [c for c in plain if (c["policy"], c["focus"]) == (policy, focus)]
        points = [(c["kept"], c["exact"]) for c in own if c["keep_ratio"] < 1]
        points = [(100.0, whole), *sorted(points, reverse=True)]
        found[f"{policy}{', focus' * focus}"] = [list(point) for point in points]
    return found


def _draw_kept(axis: Any, figures: Figures, theme: Theme) -> None:
    lines = []
    for (policy, focus), (label, colour) in POLICIES.items():
        points = figures[f"{policy}{', focus' * focus}"]
        style = "-" if focus or colour != "green" else "--"
        bold = policy == "diverse"
        lines.append(Line(label, [y for _, y in points], theme.lines[colour], style, bold))
    kept = [x for x, _ in next(iter(figures.values()))]
    log_lines(axis, kept, lines, theme, "{:.1f} %")
    axis.set_xticks(kept, [f"{x:g}" for x in kept])
    axis.set_ylim(0, 100)
    axis.set_ylabel("Exact answers, %")
    axis.set_xlabel("Visual tokens kept, %")


# -- bytes per frame by setting ------------------------------------------------------------------


def _bytes(store: Figures, eviction: Figures) -> Figures:
    stored = {f"{name}": round(size["disk"]) for name, size in store["sizes"].items()}
    packed = {
        _setting(cell): cell["bytes_per_frame"]
        for cell in eviction["cells"]
        if cell["bits"] is not None and cell["policy"] in ("none", "diverse")
    }
    order = sorted(packed, key=lambda name: -packed[name])
    return {
        "fp16": store["fp16_bytes"],
        "on disk": stored,
        "keys and values": {name: packed[name] for name in order},
    }


def _setting(cell: Figures) -> str:
    bits = "K{:g}/V{:g}".format(*cell["bits"])
    kept = "all tokens" if cell["keep_ratio"] == 1 else f"{100 * cell['keep_ratio']:.0f} % kept"
    return f"{kept}, {bits}{', 3 layers at K4/V4' if cell['protected'] else ''}"


def _draw_bytes(axis: Any, figures: Figures, theme: Theme) -> None:
    names = {"as they are": "not packed (float32)"}
    groups = (
        ("Keys and values in fp16", {"not packed": figures["fp16"]}, "grey"),
        ("A store on disk, summaries included", figures["on disk"], "orange"),
        ("Keys and values, packed and thinned", figures["keys and values"], "blue"),
    )
    at, places, labels = 0, [], []
    for title, rows, colour in groups:
        axis.text(
            700, at, title, color=theme.lines[colour], weight="bold", va="center", fontsize=9.5
        )
        at -= 1
        for name, size in rows.items():
            axis.hlines(at, 700, size, color=theme.grid, linewidth=1, zorder=1)
            axis.plot(size, at, "o", color=theme.lines[colour], markersize=7)
            axis.annotate(
                f"{size:,}", (size, at), (8, 0), textcoords="offset points", va="center",
                color=theme.ink, fontsize=9,
            )  # fmt: skip
            places.append(at)
            labels.append(names.get(name, name))
            at -= 1
        at -= 0.35
    axis.set_xscale("log")
    axis.set_xlim(700, 200_000)
    axis.set_ylim(at + 0.7, 0.8)
    axis.set_yticks(places, labels)
    axis.set_xticks([1000, 10_000, 100_000], ["1,000", "10,000", "100,000"])
    axis.minorticks_off()
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color=theme.grid, linewidth=0.8)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("Bytes per frame (logarithmic)")


# -- time per frame: the whole stream, and its last frames ---------------------------------------

ENGINES = {
    "re-encode": ("`generate` over the whole clip\nfor each question", "purple"),
    "grow": ("a `DynamicCache` that keeps\nevery frame", "orange"),
    "mmkv": ("mmkv", "blue"),
}


def _times(stock: Figures) -> Figures:
    return {
        "frames": stock["frames"],
        "every": stock["question_every"],
        "milliseconds": {
            name: [round(1e3 / stock[part][name], 2) for part in ("fps", "fps_at_the_end")]
            for name in ENGINES
        },
    }


def _draw_times(axis: Any, figures: Figures, theme: Theme) -> None:
    for name, times in figures["milliseconds"].items():
        label, colour = ENGINES[name]
        colour, weight = theme.lines[colour], "bold" if name == "mmkv" else "normal"
        axis.plot([0, 1], times, "-o", color=colour, linewidth=2.2, markersize=6)
        for x, side in ((0, "right"), (1, "left")):
            shown = f"{times[x]:.1f}" if x == 0 else f"{times[x]:.1f}  {label}"
            axis.annotate(
                shown.replace("`", ""), (x, times[x]), (-9 if x == 0 else 9, 0), ha=side,
                va="center", textcoords="offset points", color=colour, weight=weight, fontsize=9.5,
            )  # fmt: skip
    frames, every = figures["frames"], figures["every"]
    axis.set_xticks([0, 1], [f"all {frames} frames", f"the last {every} frames"])
    axis.set_xlim(-0.25, 1.05)
    axis.set_ylim(0, 70)
    axis.grid(axis="y", color=theme.grid, linewidth=0.8)
    axis.set_ylabel("Milliseconds per frame")
    axis.set_xlabel("Average over")


# -- a question's first token --------------------------------------------------------------------

PLACES = {"disk": ("frames on disk", "orange"), "memory": ("frames in memory", "blue")}


def _first(question: Figures) -> Figures:
    times = question["milliseconds"]
    lengths = sorted({int(name.split()[0]) for name in times})
    return {
        "frames": lengths,
        "milliseconds": {
            place: [round(times[f"{n} frames, {place}"]["first_token"], 2) for n in lengths]
            for place in PLACES
        },
    }


def _draw_first(axis: Any, figures: Figures, theme: Theme) -> None:
    lines = [
        Line(PLACES[place][0], times, theme.lines[PLACES[place][1]], "-")
        for place, times in figures["milliseconds"].items()
    ]
    log_lines(axis, figures["frames"], lines, theme, "{:.1f} ms")
    axis.set_ylim(0, 25)
    axis.set_ylabel("Time to the first token, ms")
    axis.set_xlabel("Length of the stream, frames")


# -- what they share -----------------------------------------------------------------------------


CHARTS = (
    Chart("accuracy-by-length", ("needles",), 3.9, 0.08, 0.64, _lengths, _draw_lengths),
    Chart("accuracy-by-kept", ("eviction",), 3.9, 0.08, 0.7, _kept, _draw_kept),
    Chart("bytes-per-frame", ("store", "eviction"), 5.2, 0.35, 0.97, _bytes, _draw_bytes),
    Chart("time-per-frame", ("stock",), 3.7, 0.08, 0.66, _times, _draw_times),
    Chart("first-token", ("question",), 3.2, 0.08, 0.72, _first, _draw_first),
)


def figures(chart: Chart) -> Figures:
    """What a chart shows, from the results as they are now."""
    return chart.figures(*(read(name) for name in chart.results))


def save(chart: Chart, theme: Theme, folder: Path) -> Path:
    """Draw one chart for one kind of page."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shown = figures(chart)
    settings = {
        "svg.hashsalt": "mmkv",
        "svg.fonttype": "path",  # the same glyphs everywhere
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 9.5,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.muted,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.labelpad": 7,
    }
    path = folder / f"{chart.name}-{theme.name}.svg"
    with pyplot.style.context(["default", settings]):  # whatever settings the user has
        figure, axis = pyplot.subplots(figsize=(WIDTH, chart.height))
        below, above = 0.55 / chart.height, 1 - 0.12 / chart.height
        figure.subplots_adjust(chart.left, below, chart.right, above)
        chart.draw(axis, shown, theme)
        about = {"Date": None, "Description": json.dumps(shown)}
        figure.savefig(path, transparent=True, metadata=about)
        pyplot.close(figure)
    return path


def save_all(folder: Path = IMAGES) -> list[Path]:
    """Draw every chart, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    return [save(chart, theme, folder) for chart in CHARTS for theme in THEMES]


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=IMAGES, help="folder (default: docs/img)")
    for path in save_all(parser.parse_args().into):
        print(path)


if __name__ == "__main__":
    main()
