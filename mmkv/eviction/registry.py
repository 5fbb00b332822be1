"""Eviction policies by name."""

from __future__ import annotations

from mmkv.eviction.base import Eviction
from mmkv.eviction.diverse import Diverse
from mmkv.eviction.none import Nothing
from mmkv.eviction.random import Random
from mmkv.eviction.snapkv import SnapKV
from mmkv.eviction.temporal import Temporal
from mmkv.eviction.text_prior import TextPrior
from mmkv.registry import Registry

EVICTIONS: Registry[Eviction] = Registry(
    "eviction", (TextPrior, Temporal, SnapKV, Diverse, Random, Nothing)
)
DEFAULT = Diverse.name
_FIRST = Temporal.name + "+"  # what another policy may follow


def make_eviction(eviction: object) -> Eviction:
    """The policy that a configuration means.

    "temporal+NAME" evicts redundant tokens first, then as NAME does.

    Raises:
        ValueError: there is no such policy.
    """
    if isinstance(eviction, Eviction):
        return eviction
    if isinstance(eviction, str) and eviction.startswith(_FIRST):
        name = eviction.removeprefix(_FIRST)
        if name in EVICTIONS and name not in (Temporal.name, Nothing.name):
            return Temporal(EVICTIONS[name]())
    hint = ", 'temporal+' before one of them, or a policy of your own"
    return EVICTIONS[EVICTIONS.check(eviction, hint=hint)]()
