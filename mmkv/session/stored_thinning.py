"""How a stream that is opened again thins what it encodes from now on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmkv.config.policies import UNNAMED
from mmkv.eviction.none import Nothing
from mmkv.eviction.registry import make_eviction
from mmkv.merging.registry import make_merge

if TYPE_CHECKING:
    from mmkv.config.cache import CacheConfig
    from mmkv.config.resolved import ResolvedConfig

_UNNAMED = {**UNNAMED, "focus": None}


def thinning_facts(sizes: ResolvedConfig) -> dict[str, Any]:
    """Return what a store's meta.json says about thinning: policies by their names."""
    return {
        "keep_ratio": sizes.keep_ratio,
        "eviction": make_eviction(sizes.eviction).name,
        "merging": make_merge(sizes.merging).name,
        "focus": sizes.focus,
    }


def stored_thinning(
    stored: Mapping[str, Any], config: CacheConfig | None, *, writing: bool
) -> dict[str, Any]:
    """Return the store's thinning settings, replaced by those that `config` names.

    Pages record which tokens they keep, so thinning may change within a stream.

    Args:
        stored: what the store's meta.json says.
        config: what the user names, or None.
        writing: whether frames will be encoded.

    Raises:
        ValueError: frames will be encoded, and the store's policy was a custom one; or none will
            be, and `config` says how to thin them.
    """
    found = {name: stored.get(name, value) for name, value in _UNNAMED.items()}
    named = {} if config is None else {name: getattr(config, name) for name in _UNNAMED}
    named = {name: value for name, value in named.items() if value is not None}
    if "eviction" in named and make_eviction(named["eviction"]).name == Nothing.name:
        named["keep_ratio"] = 1.0
    if not writing:
        for name, value in named.items():
            if getattr(value, "name", value) != found[name]:
                raise ValueError(
                    f"{name}={value!r} says what is kept of new frames, but a store that is only "
                    "read takes none; leave it out, or continue the store "
                    "(open(..., mode='a'), mmkv encode)"
                )
    found |= named
    for name, make in (("eviction", make_eviction), ("merging", make_merge)):
        try:
            make(found[name])
        except ValueError:
            if writing and found["keep_ratio"] != 1:
                raise ValueError(
                    f"the store was encoded with {name}={found[name]!r}, a custom policy; to "
                    f"continue it, open it with config=CacheConfig({name}=...)"
                ) from None
            found |= {"keep_ratio": 1.0, name: _UNNAMED[name]}
    return found
