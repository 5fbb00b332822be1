"""What transformers calls differently from version to version, from 5.17 on."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

_CACHE_NAMES = ("cache", "past_key_values")  # from 5.24 on; before, and as an alias until 5.40


def cache_argument(module: nn.Module) -> str:
    """Return the keyword by which a model's forward takes its key-value cache.

    Args:
        module: a language model of transformers, or a model around one.

    Returns:
        "cache" or "past_key_values"; the class is looked at once.

    Raises:
        TypeError: the forward takes no cache by either name.
    """
    kind: Any = type(module)  # not of the object, whose forward accelerate may replace
    return _cache_argument(kind)


@functools.cache
def _cache_argument(kind: Any) -> str:
    taken = inspect.signature(kind.forward).parameters
    for name in _CACHE_NAMES:
        if name in taken:
            return name
    raise TypeError(
        f"{kind.__name__}.forward takes no key-value cache (looked for {' and '.join(_CACHE_NAMES)}"
        "); pass a language model of transformers"
    )
