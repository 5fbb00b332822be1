"""Checks of settings and options; every error names the value and what is allowed."""

from __future__ import annotations

from numbers import Real

from mmkv.config.resolved import ResolvedConfig


def check_whole(
    name: str, value: object, low: int, *, optional: bool = False, also: str = ""
) -> None:
    """Raise ValueError for what is not a whole number of `low` or more.

    Args:
        optional: whether None is allowed.
        also: what else is allowed, in words, for the error.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(
            f"{name}={value!r} is not allowed; use a whole number of {low} or more{also}"
        )


def check_focus(focus: object) -> None:
    """Raise ValueError for a standing instruction that is empty or not a text."""
    if focus is not None and not (isinstance(focus, str) and focus.strip()):
        raise ValueError(
            f"focus={focus!r} says nothing; write what to watch for, such as 'the people at the "
            "door', or leave it out"
        )


def check_keep_ratio(name: str, ratio: object) -> None:
    """Raise ValueError for what is not a share of tokens."""
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < float(ratio) <= 1:
        raise ValueError(
            f"{name}={ratio!r} is not allowed; use a share above 0 and up to 1, such as 0.5, "
            "where 1 keeps every token"
        )


def check_span(since: object, until: object) -> None:
    """Raise ValueError for what is not a time."""
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and not isinstance(moment, Real):
            raise ValueError(f"{name}={moment!r} is not a time; pass seconds or None")


def checked_recent(recent_frames: int | None, config: ResolvedConfig) -> int:
    """Return how many of the newest frames a question sees; None is as configured.

    Raises:
        ValueError: it is not a number of frames in the window.
    """
    window = config.window_frames
    if recent_frames is None:
        return config.recent_frames
    whole = isinstance(recent_frames, int) and not isinstance(recent_frames, bool)
    if not whole or not 0 <= recent_frames <= window:
        raise ValueError(
            f"recent_frames={recent_frames!r} is not allowed; use a whole number from 0 "
            f"to the window's {window}"
        )
    return recent_frames
