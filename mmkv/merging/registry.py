"""Merging policies by name."""

from __future__ import annotations

from mmkv.merging.base import Merge
from mmkv.merging.lookm import Average, Pivot, Weighted
from mmkv.merging.none import NoMerge
from mmkv.registry import Registry

MERGINGS: Registry[Merge] = Registry("merging", (NoMerge, Average, Pivot, Weighted))


def make_merge(merging: object) -> Merge:
    """The policy that a configuration means.

    Raises:
        ValueError: there is no such policy.
    """
    if isinstance(merging, Merge):
        return merging
    return MERGINGS[MERGINGS.check(merging, hint=", or a policy of your own")]()
