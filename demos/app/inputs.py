"""What each event of the page takes: values that its own controls could not have sent are refused.

Gradio would raise an error for most of them too, but only later, and with a traceback.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import gradio as gr

Accepts = Callable[[object], bool]


def accepted(blocks: gr.Blocks) -> Mapping[int, Sequence[Accepts]]:
    """Find out what a page's events take.

    Args:
        blocks: the page.

    Returns:
        by the number of an event, a check of each of its values.
    """
    return {number: [_check(one) for one in event.inputs] for number, event in blocks.fns.items()}


def _check(control: object) -> Accepts:
    """The check of a control's value."""
    if isinstance(control, gr.Radio):
        values = [value for _, value in control.choices]
        return lambda value: (
            any(type(value) is type(one) and value == one for one in values)
            or (type(value) is int and value in [one for one in values if isinstance(one, float)])
        )
    if isinstance(control, gr.Slider):
        least, most = control.minimum, control.maximum
        return lambda value: _is_number(value) and least <= float(value) <= most  # type: ignore[arg-type]
    if isinstance(control, gr.Checkbox):
        return lambda value: isinstance(value, bool)
    if isinstance(control, (gr.Textbox, gr.Button)):
        return lambda value: value is None or (isinstance(value, str) and _is_text(value))
    if isinstance(control, gr.JSON):
        return lambda value: value is None or isinstance(value, dict)
    return lambda value: True


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_text(value: str) -> bool:
    """Whether it consists of whole characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
