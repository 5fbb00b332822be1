"""Answers as HTML for notebooks: text escaped, pictures inside, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmkv.answer.answer import Answer

_MOST = 8  # frames shown of an answer


def answer(found: Answer) -> str:
    """An answer, and the frames it was given from with their times."""
    from mmkv.config.units import clock

    shown = [
        figure(frame.thumbnail, clock(frame.seconds), f"score {frame.score:.2f}")
        for frame in found.frames[:_MOST]
    ]
    notes = [f"seen up to {clock(found.as_of)}"] if found.as_of >= 0 else []
    if found.finish_reason != "stop":
        notes.append("cut off" if found.finish_reason == "length" else found.finish_reason)
    if found.hint:
        notes.append(found.hint)
    text = escape(found.text).replace("\n", "<br>")
    told = f"<p><small>{escape('; '.join(notes))}</small></p>"
    return f"<div><p><b>{text}</b></p>{row(shown)}{told}</div>"


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
