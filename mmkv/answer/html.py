"""Pictures in HTML for notebooks: text escaped, pictures inside, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape


def figure(thumbnail: bytes | None, label: str, title: str) -> str:
    """Format a picture with a label below it; the title shows when pointed at."""
    return (
        f"<figure style='display:inline-block;margin:2px' title='{escape(title)}'>"
        f"{picture(thumbnail)}<figcaption style='text-align:center'>{escape(label)}</figcaption>"
        "</figure>"
    )


def picture(thumbnail: bytes | None) -> str:
    """Format a JPEG as a data URI; "" for None."""
    if thumbnail is None:
        return ""
    return f"<img src='data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}' alt=''>"


def row(figures: Iterable[str]) -> str:
    """Put figures beside each other."""
    return f"<div>{''.join(figures)}</div>"
