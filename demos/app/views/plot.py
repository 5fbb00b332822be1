"""Memory over the stream's time, as a small SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmkv.config.units import clock, size
from mmkv.demos.app.meter import Point

WIDTH, HEIGHT = 600, 150
LINES: tuple[tuple[str, str, Callable[[Point], int]], ...] = (
    ("everything", "if the window kept every frame", lambda p: p.everything),
    ("disk", "disk", lambda p: p.disk),
    ("host", "host memory", lambda p: p.host),
    ("window", "window, on the device", lambda p: p.window),
)


def plot(points: Sequence[Point]) -> str:
    """Draw a line for each kind of memory, from 0 to the largest, over the stream's time."""
    if len(points) < 2:
        return (
            '<div class="mm-plot mm-empty"><p>Memory over time appears here: '
            "the window stays the same, however long the video.</p></div>"
        )
    begin, end = points[0].seconds, max(points[-1].seconds, points[0].seconds + 1e-9)
    top = max(max(value(p) for _, _, value in LINES) for p in points) or 1
    lines, legend = [], []
    for name, label, value in LINES:
        places = " ".join(
            f"{(p.seconds - begin) / (end - begin) * WIDTH:.1f},"
            f"{HEIGHT - value(p) / top * (HEIGHT - 4) - 2:.1f}"
            for p in points
        )
        lines.append(f'<polyline class="mm-line-{name}" points="{places}"/>')
        now = size(value(points[-1]))
        legend.append(f'<li class="mm-key-{name}"><i></i>{label}<b>{now}</b></li>')
    return (
        f'<figure class="mm-plot"><figcaption><span>Memory over time</span>'
        f'<span>up to {size(top)}</span></figcaption><div class="mm-axes">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Memory over the time of the stream">{"".join(lines)}</svg>'
        f'<span class="mm-from">{clock(begin)}</span><span class="mm-to">{clock(end)}</span></div>'
        f"<ul>{''.join(reversed(legend))}</ul></figure>"
    )
