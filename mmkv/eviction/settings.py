"""What thinning can be told, checked once."""

from __future__ import annotations


def check_focus(focus: object) -> None:
    """Raises ValueError where a standing instruction is given and says nothing."""
    if focus is not None and not (isinstance(focus, str) and focus.strip()):
        raise ValueError(
            f"focus={focus!r} says nothing; write what to watch for, such as 'the people at the "
            "door', or leave it out"
        )
