"""The charts in docs/img/ show what benchmarks/results/ hold."""

from __future__ import annotations

import html
import json
import platform
import re
from pathlib import Path

import pytest

from benchmarks.charts import CHARTS, IMAGES, THEMES, Chart, Theme, figures, save

CASES = [(chart, theme) for chart in CHARTS for theme in THEMES]
IDS = [f"{chart.name}-{theme.name}" for chart, theme in CASES]


def committed(chart: Chart, theme: Theme) -> str:
    return (IMAGES / f"{chart.name}-{theme.name}.svg").read_text("utf-8")


def drawn_by(svg: str) -> str:
    found = re.search(r"Matplotlib v([\d.]+\d)", svg)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(("chart", "theme"), CASES, ids=IDS)
def test_a_chart_carries_the_figures_of_the_results(chart: Chart, theme: Theme) -> None:
    described = re.search(r"<dc:description>(.*?)</dc:description>", committed(chart, theme), re.S)
    assert described is not None
    assert json.loads(html.unescape(described[1])) == figures(chart)


@pytest.mark.parametrize(("chart", "theme"), CASES, ids=IDS)
def test_drawing_a_chart_again_gives_the_same_bytes(
    chart: Chart, theme: Theme, tmp_path: Path
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    svg = committed(chart, theme)
    if drawn_by(svg) != matplotlib.__version__ or platform.machine() != "x86_64":
        pytest.skip(f"drawn by matplotlib {drawn_by(svg)} on x86_64; others round differently")
    assert save(chart, theme, tmp_path).read_text("utf-8") == svg


def test_nothing_else_is_among_the_charts() -> None:
    names = {path.name for path in IMAGES.glob("*-light.svg")} | {
        path.name for path in IMAGES.glob("*-dark.svg")
    }
    assert names == {f"{name}.svg" for name in IDS}


@pytest.mark.parametrize("name", [chart.name for chart in CHARTS])
def test_a_page_shows_every_chart_for_both_kinds_of_page(name: str) -> None:
    page = (IMAGES.parent / "benchmarks.md").read_text("utf-8")
    for theme in THEMES:
        assert f"](img/{name}-{theme.name}.svg#only-{theme.name})" in page
