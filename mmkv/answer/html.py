"""Pictures in HTML for notebooks: text escaped, pictures inside, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape


def figure(thumbnail: bytes | None, label: str, title: str) -> str:
    """A picture with its time below."""
    return (
        f"<figure style='display:inline-block;margin:2px' title='{escape(title)}'>"
        f"{picture(thumbnail)}<figcaption style='text-align:center'>{escape(label)}</figcaption>"
        "</figure>"
    )


def picture(thumbnail: bytes | None) -> str:
    """A JPEG as a data URI; nothing where none was kept."""
    if thumbnail is None:
        return ""
    return f"<img src='data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}' alt=''>"


def row(figures: Iterable[str]) -> str:
    """Figures beside each other."""
    return f"<div>{''.join(figures)}</div>"
