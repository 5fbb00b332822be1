"""The configurations that `eviction.py` compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mmkv
from mmkv.eviction import make_eviction

WINDOW, RECENT, RETRIEVE = 16, 4, 8
RATIOS = (0.5, 0.2, 0.1, 0.05)
POLICIES = ("random", "text-prior", "snapkv", "temporal", "temporal+text-prior", "diverse")
MERGES = ("none", "average", "pivot", "weighted")
FOCUS = "red circle green square blue triangle yellow star orange cross purple ring cyan white"


@dataclass(frozen=True, order=True)
class Cell:
    """One configuration.

    Attributes:
        packed: key and value bits, or None for unpacked.
        protected: layers packed at 4 bits instead.
    """

    policy: str
    keep: float
    merge: str = "none"
    focus: bool = False
    packed: tuple[float, float] | None = None
    protected: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the results."""
        parts = [self.policy, f"{100 * self.keep:g}%"]
        parts += [self.merge] if self.merge != "none" else []
        parts += ["focus"] if self.focus else []
        parts += [f"K{self.packed[0]:g}/V{self.packed[1]:g}"] if self.packed else []
        parts += [f"layers {', '.join(map(str, self.protected))} K4/V4"] if self.protected else []
        return " ".join(parts)

    @property
    def observed(self) -> tuple[int, bool]:
        """What encoding depends on: cells with the same value can share an encoded stream."""
        observes = make_eviction(self.policy).observes
        return observes, self.focus and observes != 0

    def config(self) -> mmkv.CacheConfig:
        """What a stream is opened with."""
        options: dict[str, Any] = {}
        if self.packed:
            options = {"key_bits": self.packed[0], "value_bits": self.packed[1]}
            options["protected_layers"] = self.protected
        if self.keep < 1:
            options |= {"keep_ratio": self.keep, "eviction": self.policy, "merging": self.merge}
        if self.focus:
            options["focus"] = FOCUS
        return mmkv.CacheConfig(
            window_frames=WINDOW, recent_frames=RECENT, retrieve_frames=RETRIEVE, **options
        )


WHOLE = Cell("none", 1.0)
PACKED = (1.5, 1.58)


def bar_cells() -> list[Cell]:
    """Cells for the bars: nothing evicted, the control, the best policy, and all of it stored."""
    return [WHOLE, Cell("diverse", 0.2), Cell("random", 0.2), Cell("diverse", 0.5), *packed_cells()]


def main_cells() -> list[Cell]:
    """The control, and each policy at half and at a fifth."""
    return [WHOLE] + [Cell(policy, keep) for keep in (0.2, 0.5) for policy in POLICIES]


def focus_cells() -> list[Cell]:
    """Policies that look at a text, with a focus on what the questions will be about."""
    return [
        Cell(policy, keep, focus=True)
        for policy in ("text-prior", "snapkv", "temporal+text-prior")
        for keep in RATIOS
    ]


def packed_cells() -> list[Cell]:
    """Everything at once: evicted, packed and in a store."""
    return [
        Cell("none", 1.0, packed=PACKED),
        *(Cell("diverse", keep, packed=PACKED) for keep in (0.5, 0.2)),
        *(Cell("diverse", keep, packed=PACKED, protected=(1, 2, 3)) for keep in (0.25, 0.2)),
        Cell("diverse", 0.2, packed=(4, 4)),
    ]


def all_cells() -> list[Cell]:
    """Every policy, ratio and merge, most important first."""
    rest = [Cell(policy, keep, merge) for merge in MERGES for keep in RATIOS for policy in POLICIES]
    return list(dict.fromkeys([*bar_cells(), *main_cells(), *focus_cells(), *rest]))


SETS = {"bars": bar_cells, "main": main_cells, "focus": focus_cells, "all": all_cells}
