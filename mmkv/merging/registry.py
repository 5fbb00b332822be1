"""Merging policies by name."""

from __future__ import annotations

from mmkv.merging.base import Merge
from mmkv.merging.lookm import Average, Pivot, Weighted
from mmkv.merging.none import NoMerge

MERGINGS: dict[str, type[Merge]] = {m.name: m for m in (NoMerge, Average, Pivot, Weighted)}


def make_merge(merging: object) -> Merge:
    """The policy that a configuration means.

    Raises:
        ValueError: there is no such policy.
    """
    if isinstance(merging, Merge):
        return merging
    if not isinstance(merging, str) or merging not in MERGINGS:
        known = ", ".join(map(repr, MERGINGS))
        raise ValueError(f"merging={merging!r} is not known; use {known}, or a policy of your own")
    return MERGINGS[merging]()
