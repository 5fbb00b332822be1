"""The conversation, as messages of Gradio's chatbot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmkv.config.units import clock, took
from mmkv.demos.app.views.timeline import found

if TYPE_CHECKING:
    from mmkv.demos.app.exchange import Exchange

WAITING = {"waiting": "…", "answering": "…"}


def talk(exchanges: Sequence[Exchange], gap: float) -> list[dict[str, str]]:
    """Make a message of each question and each answer, with small print below the answers.

    Args:
        exchanges: questions and answers, oldest first.
        gap: frames at most this many seconds apart are one moment.

    Returns:
        messages of Gradio's chatbot.
    """
    messages = []
    for exchange in exchanges:
        messages.append({"role": "user", "content": exchange.question})
        messages.append({"role": "assistant", "content": answer(exchange, gap)})
    return messages


def answer(exchange: Exchange, gap: float) -> str:
    """Format the answer so far, and below it where it was found, how fast, and any remark."""
    text = exchange.text or WAITING.get(exchange.state, "")
    small = []
    moments = found(exchange.frames, gap)
    if moments:
        small.append("found at " + ", ".join(map(str, moments[:3])))
    if exchange.as_of is not None:
        small.append(f"as of {clock(exchange.as_of)}")
    if exchange.first_token is not None:
        small.append(f"first word after {took(exchange.first_token)}")
    if exchange.state == "stopped":
        small.append("stopped")
    remarks = " · ".join(part.replace(" ", "\u00a0") for part in small)
    parts = [text, f"<small>{remarks}</small>" if small else "", exchange.note]
    return "\n\n".join(part for part in parts if part)
