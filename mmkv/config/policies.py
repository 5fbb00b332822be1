"""What thinning can be told, checked once."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

from mmkv.archive.thinning import Thinning
from mmkv.eviction.none import Nothing
from mmkv.eviction.registry import DEFAULT, make_eviction
from mmkv.merging.none import NoMerge
from mmkv.merging.registry import make_merge

if TYPE_CHECKING:
    from mmkv.config.resolved import ResolvedConfig

# how a stream is thinned where nothing else is named
UNNAMED: dict[str, Any] = {"keep_ratio": 1.0, "eviction": DEFAULT, "merging": NoMerge.name}


def check_focus(focus: object) -> None:
    """Raises ValueError where a standing instruction is given and says nothing."""
    if focus is not None and not (isinstance(focus, str) and focus.strip()):
        raise ValueError(
            f"focus={focus!r} says nothing; write what to watch for, such as 'the people at the "
            "door', or leave it out"
        )


def check_keep_ratio(name: str, ratio: object) -> None:
    """Raises ValueError for what is no share of tokens."""
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < float(ratio) <= 1:
        raise ValueError(
            f"{name}={ratio!r} is not allowed; use a share above 0 and up to 1, such as 0.5, "
            "where 1 keeps every token"
        )


def check_thinning(keep_ratio: object, eviction: object, merging: object) -> None:
    """Raises ValueError for a ratio that is none, an unknown policy, or a contradiction. None is
    what was not named.
    """
    if keep_ratio is not None:
        check_keep_ratio("keep_ratio", keep_ratio)
    if merging is not None:
        make_merge(merging)
    if eviction is None:
        return
    if make_eviction(eviction).name == Nothing.name and keep_ratio not in (None, 1):
        raise ValueError(
            f"keep_ratio={keep_ratio!r} evicts tokens and eviction='none' keeps all; leave "
            "keep_ratio out, or name a policy"
        )


def thinning_of(config: ResolvedConfig) -> Thinning | None:
    """How a configuration thins the archived copy; None: not at all."""
    if config.keep_ratio == 1:
        return None
    policy, merge = make_eviction(config.eviction), make_merge(config.merging)
    return Thinning(policy, merge, config.keep_ratio)
