"""The whole stream as a line: how far it is encoded, and where an answer was found."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from mmkv.config.units import clock

if TYPE_CHECKING:
    from mmkv.demos.app.exchange import Exchange, Seen
    from mmkv.demos.app.watch import Watch

SHOWN = 6  # thumbnails side by side


@dataclass(frozen=True, slots=True)
class Found:
    """Frames next to each other that an answer is based on.

    Attributes:
        start: seconds of the first.
        end: seconds of the last.
        seconds: of the one that matches best.
        picture: of the same one, a small JPEG.
        rank: 0 for the best moment, and so on.
    """

    start: float
    end: float
    seconds: float
    picture: bytes | None
    rank: int

    def __str__(self) -> str:
        first, last = clock(self.start), clock(self.end)
        return first if first == last else f"{first}–{last}"


def found(frames: Sequence[Seen], gap: float) -> list[Found]:
    """Gather frames, best first, into moments.

    Args:
        frames: best first.
        gap: frames at most this many seconds apart are in one moment.

    Returns:
        moments, best first.
    """
    rank = {frame: place for place, frame in enumerate(frames)}
    runs: list[list[Seen]] = []
    for frame in sorted(frames, key=lambda f: f.seconds):
        if runs and frame.seconds - runs[-1][-1].seconds <= gap:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    moments = []
    for run in runs:
        best = min(run, key=lambda frame: rank[frame])
        moments.append((rank[best], run[0].seconds, run[-1].seconds, best))
    moments.sort(key=lambda moment: moment[0])
    return [
        Found(start, end, best.seconds, best.picture, place)
        for place, (_, start, end, best) in enumerate(moments[:SHOWN])
    ]


def spread(places: Sequence[float], width: float) -> list[float]:
    """Place things side by side, each near its place, none overlapping.

    Args:
        places: rising, between 0 and 1.
        width: of each thing; the whole is 1.

    Returns:
        their left edges.
    """
    edges: list[float] = []
    for place in places:
        wanted = place - width / 2
        edges.append(max(wanted, edges[-1] + width) if edges else max(0.0, wanted))
    limit = 1.0 - width
    for i in range(len(edges) - 1, -1, -1):
        edges[i] = min(edges[i], limit)
        limit = edges[i] - width
    return edges


def timeline(watch: Watch | None, exchange: Exchange | None) -> str:
    """Show the line, with thumbnails above it.

    What can be clicked says where to seek (`data-seek`). Where no player shows the video, a
    thumbnail is enlarged instead.

    Args:
        watch: the video, if any.
        exchange: the question whose moments are marked, if any.
    """
    if watch is None:
        return '<div class="mm-timeline mm-empty"></div>'
    player = watch.video.path is not None
    done = watch.encoded or 0.0
    whole = max(watch.duration or 0.0, done, 1e-9)
    moments = []
    if exchange is not None:
        moments = found(exchange.frames, 1.5 / watch.settings.fps)
    moments.sort(key=lambda moment: moment.seconds)
    places = [min(1.0, max(0.0, moment.seconds / whole)) for moment in moments]
    width = 1 / SHOWN
    edges = spread(places, width)
    pictures, stems, marks = [], [], []
    for moment, place, edge in zip(moments, places, edges, strict=True):
        best = " mm-best" if moment.rank == 0 else ""
        at = f"{moment.seconds:.3f}"
        pictures.append(
            f'<button type="button" class="mm-found{best}" data-seek="{at}" '
            f'style="left:{100 * edge:.2f}%" '
            f'aria-label="Found at {moment}: {"go there" if player else "enlarge it"}">'
            f"{_picture(moment.picture)}<span>{clock(moment.seconds)}</span></button>"
        )
        middle = 100 * (edge + width / 2)
        stems.append(f'<path class="mm-stem{best}" d="M{middle:.2f} 0L{100 * place:.2f} 10"/>')
        marks.append(
            f'<i class="mm-mark{best}" data-seek="{at}" style="left:{100 * place:.2f}%"></i>'
        )
    above = ""
    if moments and exchange is not None:
        how = "" if player else ". The video is not recorded: click a picture to enlarge it"
        above = (
            f'<p class="mm-caption">Where “{escape(exchange.question)}” was found{how}</p>'
            f'<div class="mm-thumbs">{"".join(pictures)}</div>'
            f'<svg class="mm-stems" viewBox="0 0 100 10" preserveAspectRatio="none" '
            f'aria-hidden="true">{"".join(stems)}</svg>'
        )
    live = "true" if watch.live else "false"
    state = "encoded" if not watch.feed.running else "encoded so far"
    return (
        f'<div class="mm-timeline" data-duration="{whole:.3f}" data-live="{live}">{above}'
        f'<div class="mm-bar"><div class="mm-done" style="width:{100 * done / whole:.2f}%"></div>'
        f'<div class="mm-play"></div>{"".join(marks)}</div>'
        f'<div class="mm-ends"><span>0:00</span><span class="mm-state">{clock(done)} {state}</span>'
        f"<span>{clock(whole)}</span></div></div>"
    )


def _picture(jpeg: bytes | None) -> str:
    if jpeg is None:
        return "<em></em>"
    data = base64.b64encode(jpeg).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'
