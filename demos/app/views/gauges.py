"""The numbers beside the player."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mmkv.config.units import size, took

if TYPE_CHECKING:
    from mmkv import Stats
    from mmkv.demos.app.exchange import Exchange
    from mmkv.demos.app.watch import Watch


def gauges(watch: Watch | None, stats: Stats | None, last: Exchange | None) -> str:
    """Show eight gauges with their units; dashes where there is nothing to measure yet.

    Args:
        watch: the video, if any.
        stats: its stream's counters.
        last: the newest question, if any.
    """
    tiles = [_tile(*row) for row in (_rows(watch, stats, last))]
    return f'<div class="mm-gauges" role="group" aria-label="Gauges">{"".join(tiles)}</div>'


def _rows(
    watch: Watch | None, stats: Stats | None, last: Exchange | None
) -> list[tuple[str, str, str, str]]:
    first = None if last is None else last.first_token
    answered = "–" if first is None else took(first)
    if watch is None or stats is None:
        rows = [("rate", "Encoding", "–", "frames/s"), ("dropped", "Dropped", "–", "frames")]
        rows += [("behind", "Behind live", "–", ""), ("first", "First word", answered, "")]
        rows += [("window", "Window", "–", ""), ("host", "Host memory", "–", "")]
        return [*rows, ("disk", "Disk", "–", ""), ("bits", "Bits per element", "–", "")]
    point = watch.meter.point(stats)
    rate, counted = f"{watch.meter.frames_per_second:.1f}", f"frames/s, {stats.frames} so far"
    if not watch.feed.running:
        rate, counted = "done", f"{stats.frames} frames"
    packed = "not packed" if stats.codec == "fp16" else f"packed by {stats.codec}"
    bits = "–" if stats.bits_per_element is None else f"{stats.bits_per_element:.3g}"
    return [
        ("rate", "Encoding", rate, counted),
        ("dropped", "Dropped", f"{watch.dropped}", "frames the model had no time for"),
        ("behind", "Behind live", f"{watch.behind:.1f} s", "the model behind the player"),
        ("first", "First word", answered, "after the question"),
        ("window", "Window", size(point.window), "on the device, always the same"),
        ("host", "Host memory", size(point.host), "earlier frames and their index"),
        ("disk", "Disk", size(point.disk), "deleted when you leave"),
        ("bits", "Bits per element", bits, packed),
    ]


def _tile(name: str, label: str, value: str, unit: str) -> str:
    return (
        f'<div class="mm-gauge" data-gauge="{name}"><span>{escape(label)}</span>'
        f"<b>{escape(value)}</b><small>{escape(unit)}</small></div>"
    )
