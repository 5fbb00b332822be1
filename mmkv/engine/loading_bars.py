"""Loading without the progress bars of transformers, which are switched for a whole process.

A hook decides for each thread whether a bar is shown, so that other code that loads models at the
same time keeps its own. The hook is there while something loads, and removed with the last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Hook = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_hidden: ContextVar[bool] = ContextVar("mmkv_bars_hidden", default=False)
_lock = threading.Lock()
_users = 0
_earlier: Hook | None = None  # somebody else's hook, which keeps working for other threads


@contextmanager
def hidden_bars() -> Iterator[None]:
    """Show no bar of transformers that this thread begins; others' bars and settings stay.

    Bars of the Hub's downloads are not transformers' own, and are shown.

    Yields:
        nothing.
    """
    token = _hidden.set(True)
    _install()
    try:
        yield
    finally:
        _remove()
        _hidden.reset(token)


def _install() -> None:
    global _users, _earlier
    from transformers.utils import logging

    with _lock:
        _users += 1
        if _users == 1:
            found = logging.set_tqdm_hook(_choose)
            if found is not _choose:
                _earlier = found


def _remove() -> None:
    global _users
    from transformers.utils import logging

    with _lock:
        _users -= 1
        if _users:
            return
        found = logging.set_tqdm_hook(_earlier)
        if found is not _choose:  # set by others meanwhile: theirs to remove
            logging.set_tqdm_hook(found)


def _choose(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make the bar that a thread is to see."""
    from transformers.utils.logging import EmptyTqdm

    if _hidden.get():
        return EmptyTqdm(*args, **kwargs)
    return factory(*args, **kwargs) if _earlier is None else _earlier(factory, args, kwargs)
