"""One line above everything: what the visitor has to know now."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mmkv.config.units import took

if TYPE_CHECKING:
    from mmkv.demos.app.registry import Registry
    from mmkv.demos.app.visit import Visit

GONE = "This page's session has ended. Reload the page to start again."


def banner(registry: Registry, visit: Visit | None) -> str:
    """Show an error, a position in the queue, or nothing."""
    if visit is None:
        return _line(GONE, "warn")
    limits = registry.limits
    position = registry.position(visit)
    if position:
        places = "one place is" if limits.sessions == 1 else f"all {limits.sessions} places are"
        return _line(
            f"Busy, position {position}: {places} taken. Your video starts by itself when it is "
            "your turn; keep this page open.",
            "wait",
        )
    if visit.why == "idle":
        return _line(
            f"Your video and conversation were deleted after {took(limits.idle_seconds)} without "
            "activity. Choose a video to start again.",
            "warn",
        )
    session = visit.session
    if session.message:
        return _line(session.message, "error")
    note = session.watch.note() if session.watch is not None else ""
    return _line(note, "warn") if note else ""


def _line(text: str, kind: str) -> str:
    return f'<div class="mm-banner mm-{kind}" role="status">{escape(text)}</div>'
