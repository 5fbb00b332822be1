"""How a stream that is opened again thins what it encodes from now on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmkv.eviction.none import Nothing
from mmkv.eviction.registry import DEFAULT, make_eviction
from mmkv.merging.registry import make_merge

if TYPE_CHECKING:
    from mmkv.config import CacheConfig

_BEGAN: dict[str, Any] = {
    "keep_ratio": 1.0, "eviction": DEFAULT, "merging": "none", "focus": None,
}  # fmt: skip


def stored_thinning(
    stored: Mapping[str, Any], config: CacheConfig | None, *, writing: bool
) -> dict[str, Any]:
    """As the store began, but for what `config` says otherwise; pages say for themselves which
    tokens they keep, so a stream may change its mind.

    Args:
        stored: what the store's meta.json says. writing: whether frames will be encoded.

    Raises:
        ValueError: frames will be, and the store's policy was somebody's own.
    """
    found = {}
    for name, default in _BEGAN.items():
        given = default if config is None else getattr(config, name)
        found[name] = stored.get(name, default) if given == default else given
    if config is not None and make_eviction(config.eviction).name == Nothing.name:
        found["keep_ratio"] = 1.0  # from now on
    for name, make in (("eviction", make_eviction), ("merging", make_merge)):
        try:
            make(found[name])
        except ValueError:
            if writing:
                raise ValueError(
                    f"the store was encoded with {name}={found[name]!r}, a policy of its own; to "
                    f"go on with it, open it with config=CacheConfig({name}=...)"
                ) from None
            found |= {"keep_ratio": 1.0, name: _BEGAN[name]}
    return found
